// The C interface through sparsert.h alone: a file built here byte by byte, loaded, planned and run
// with a counting allocator that also fails at every single allocation in turn.
//
//   capi_test            the built-in model
//   capi_test FILE...    the allocation tests on .sprt files too, with 8 for every symbol, and one
//   run
#include "include/sparsert.h"

#include <atomic>
#include <thread>

#include "capi_harness.h"

namespace {

using namespace capi;

void TestRun(const File& file, const Weights& w, const char* isa, int threads) {
  Counter counter;
  const srt_allocator allocator = {&Allocate, &Release, &counter};
  srt_options options = Options(threads, isa, &allocator);
  srt_error error = {};
  srt_model* model = nullptr;
  Expect(srt_model_load(file.data, file.size, &options, &model, &error) == SRT_OK, "load: %s",
         error.text);
  if (model == nullptr) return;
  Expect(std::strcmp(srt_model_isa(model), isa) == 0, "isa is %s", srt_model_isa(model));
  Expect(srt_model_threads(model) == threads, "threads is %d", srt_model_threads(model));
  Expect(srt_model_input_count(model) == 1 && srt_model_output_count(model) == 1, "counts");
  srt_tensor_info info = {};
  Expect(srt_model_input(model, 0, &info) == SRT_OK, "input");
  Expect(std::string(info.name, info.name_bytes) == "image" && info.dtype == SRT_F32, "input name");
  Expect(info.shape.rank == 4 && info.shape.dims[0] == -1 && info.shape.dims[1] == kIn &&
             info.shape.dims[3] == -3,
         "input shape");
  const char* symbol = nullptr;
  size_t symbol_bytes = 0;
  Expect(srt_model_symbol(model, 1, &symbol, &symbol_bytes) == SRT_OK &&
             std::string(symbol, symbol_bytes) == "height",
         "symbol");
  Expect(srt_model_output(model, 0, &info) == SRT_OK &&
             std::string(info.name, info.name_bytes) == "logits",
         "output");
  for (const int32_t bad : {-1, 1, 1000}) {
    Expect(srt_model_input(model, bad, &info) == SRT_INVALID_ARGUMENT, "input %d", bad);
    Expect(srt_model_output(model, bad, &info) == SRT_INVALID_ARGUMENT, "output %d", bad);
  }
  for (const int32_t bad : {-1, 3}) {
    Expect(srt_model_symbol(model, bad, &symbol, &symbol_bytes) == SRT_INVALID_ARGUMENT, "symbol");
  }

  const int64_t sizes[][3] = {{1, 4, 5}, {2, 1, 1}, {7, 9, 17}, {1, 40, 41}};
  for (const auto& size : sizes) {
    const int64_t n = size[0], h = size[1], v = size[2];
    const srt_shape shape = Shape({n, kIn, h, v});
    srt_plan* plan = nullptr;
    Expect(srt_plan_make(model, &shape, 1, &plan, &error) == SRT_OK, "plan: %s", error.text);
    if (plan == nullptr) continue;
    srt_shape out = {};
    Expect(srt_plan_output_shape(plan, 0, &out) == SRT_OK && out.rank == 2 && out.dims[0] == n &&
               out.dims[1] == kOut,
           "output shape");
    Expect(srt_plan_output_shape(plan, 1, &out) == SRT_INVALID_ARGUMENT, "no output 1");
    Expect(srt_plan_node_count(plan) == 4, "nodes");
    srt_node_info node = {};
    Expect(srt_plan_node(plan, 0, &node) == SRT_OK && std::strcmp(node.op, "Conv") == 0 &&
               node.weights == kMiddle * kIn * 9 && node.nonzeros < node.weights / 2 &&
               node.kernel[0] != 0 && node.reason[0] != 0,
           "node 0: %s %s", node.op, node.reason);
    Expect(srt_plan_node(plan, 4, &node) == SRT_INVALID_ARGUMENT, "no node 4");
    Expect(srt_model_weight_bytes(model) > 0, "weight bytes");

    // Everything that a run may touch ends where its memory ends.
    std::vector<float> x(static_cast<size_t>(n * kIn * h * v));
    for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i * 7 % 23) * 0.125f - 1.0f;
    void* arena = AlignedBytes(srt_plan_arena_bytes(plan));
    std::memset(arena, 0xFF, srt_plan_arena_bytes(plan));
    std::vector<float> y(static_cast<size_t>(n * kOut), -99.0f);
    std::vector<uint64_t> step_ns(static_cast<size_t>(srt_plan_step_count(plan)));
    const void* inputs[] = {x.data()};
    void* outputs[] = {y.data()};
    const int64_t calls = counter.calls;
    const size_t live = counter.live.size();
    for (int run = 0; run < 3; ++run) {
      std::fill(y.begin(), y.end(), -99.0f);
      srt_plan_run_unchecked(plan, arena, inputs, outputs, run == 2 ? step_ns.data() : nullptr,
                             nullptr);
      const std::vector<double> want = Reference(w, x.data(), n, h, v);
      for (size_t i = 0; i < y.size(); ++i) {
        Expect(std::fabs(y[i] - want[i]) <= 1e-4 * (1 + std::fabs(want[i])),
               "%s, %d threads, run %d, output %zu: got %g, want %g", isa, threads, run, i,
               static_cast<double>(y[i]), want[i]);
      }
    }
    Expect(counter.calls == calls && counter.live.size() == live, "a run allocates");
    uint64_t total = 0;
    for (const uint64_t ns : step_ns) total += ns;
    Expect(total > 0, "step times");
    std::free(arena);
    srt_plan_free(plan);
  }

  Expect(srt_model_after_fork(model, &error) == SRT_OK || threads > 1, "after fork");
  srt_model_free(model);
  Expect(counter.sizes_match, "released with another size");
  Expect(counter.aligned, "unaligned");
  // After a fork in name only the first pool's threads are abandoned by design.
  Expect(counter.live.empty() || threads > 1, "%zu blocks leak", counter.live.size());
}

// Several callers of several models on one budget.
void TestBudget(const File& file, const Weights& w) {
  constexpr int kCores = 3;
  constexpr int kModels = 2;
  constexpr int kCallers = 4;
  Counter counter;
  const srt_allocator allocator = {&Allocate, &Release, &counter};
  srt_error error = {};
  srt_budget* budget = nullptr;
  Expect(srt_budget_make(-1, &allocator, &budget, &error) == SRT_INVALID_ARGUMENT &&
             budget == nullptr && error.text[0] != 0,
         "a budget of -1 cores");
  Expect(srt_budget_make(0, nullptr, &budget, nullptr) == SRT_OK, "the default budget");
  Expect(srt_budget_cores(budget) == srt_usable_cores(), "the default budget's cores");
  srt_budget_free(budget);
  srt_budget_free(nullptr);
  Expect(srt_budget_make(1, &allocator, &budget, &error) == SRT_OK, "budget: %s", error.text);
  Expect(srt_budget_cores(budget) == 1 && srt_budget_busy(budget) == 0, "a new budget");

  const int64_t n = 1, h = 80, v = 71;
  const srt_shape shape = Shape({n, kIn, h, v});
  srt_model* models[kModels] = {};
  srt_plan* plans[kModels] = {};
  for (int i = 0; i < kModels; ++i) {
    srt_options options = Options(kCores, nullptr, &allocator);
    options.tune = SRT_TUNE_OFF;
    options.budget = budget;
    Expect(srt_model_load(file.data, file.size, &options, &models[i], &error) == SRT_OK, "load: %s",
           error.text);
    Expect(srt_plan_make(models[i], &shape, 1, &plans[i], &error) == SRT_OK, "plan: %s",
           error.text);
  }
  std::vector<float> x(static_cast<size_t>(n * kIn * h * v));
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i * 5 % 19) * 0.125f - 1.0f;
  const std::vector<double> want = Reference(w, x.data(), n, h, v);
  const void* inputs[] = {x.data()};
  auto run = [&](const srt_plan* plan, int runs) {
    std::vector<float> y(want.size());
    void* outputs[] = {y.data()};
    void* arena = AlignedBytes(srt_plan_arena_bytes(plan));
    int wrong = 0;
    for (int r = 0; r < runs; ++r) {
      std::fill(y.begin(), y.end(), -99.0f);
      srt_plan_run_unchecked(plan, arena, inputs, outputs, nullptr, nullptr);
      for (size_t i = 0; i < y.size(); ++i) {
        wrong += std::fabs(y[i] - want[i]) > 1e-4 * (1 + std::fabs(want[i]));
      }
    }
    std::free(arena);
    return wrong;
  };
  Expect(run(plans[0], 3) == 0 && srt_budget_peak(budget) == 1, "a budget of one core: peak %d",
         srt_budget_peak(budget));
  srt_budget_set_cores(budget, kCores);
  Expect(run(plans[0], 3) == 0 && srt_budget_peak(budget) == kCores, "one caller: peak %d",
         srt_budget_peak(budget));
  std::atomic<int> wrong{0};
  std::vector<std::thread> callers;
  for (int i = 0; i < kCallers; ++i) {
    callers.emplace_back([&, i] { wrong += run(plans[i % kModels], 200); });
  }
  for (std::thread& caller : callers) caller.join();
  Expect(wrong == 0, "%d wrong outputs of callers on one budget", wrong.load());
  Expect(srt_budget_busy(budget) == 0, "%d cores are not given back", srt_budget_busy(budget));
  Expect(srt_budget_peak(budget) <= kCores + kCallers - 1, "peak %d", srt_budget_peak(budget));
  srt_budget_after_fork(budget);
  Expect(srt_budget_peak(budget) == 0, "the peak in a child");
  srt_budget_set_cores(budget, -5);
  Expect(srt_budget_cores(budget) == 1, "at least one core");
  for (int i = 0; i < kModels; ++i) {
    srt_plan_free(plans[i]);
    srt_model_free(models[i]);
  }
  srt_budget_free(budget);
  Expect(counter.live.empty() && counter.sizes_match, "%zu blocks leak", counter.live.size());
  counter.fail_at = counter.calls;
  Expect(srt_budget_make(2, &allocator, &budget, &error) == SRT_OUT_OF_MEMORY && budget == nullptr,
         "a budget without memory");
}

void TestErrors(const File& file) {
  srt_error error = {};
  srt_model* model = nullptr;
  auto load = [&](const void* data, size_t size, const srt_options* options) {
    error = srt_error();
    model = nullptr;
    const int32_t code = srt_model_load(data, size, options, &model, &error);
    Expect(code == error.code || code == SRT_OK, "the code and the error's code differ");
    Expect(code == SRT_OK || (model == nullptr && error.text[0] != 0), "no text");
    return code;
  };
  srt_options options = Options(1, nullptr, nullptr);
  Expect(load(file.data, file.size, nullptr) == SRT_OK, "NULL options: %s", error.text);
  srt_model_free(model);
  options.struct_bytes = 4;
  Expect(load(file.data, file.size, &options) == SRT_INVALID_ARGUMENT, "struct_bytes");
  options = Options(-1, nullptr, nullptr);
  Expect(load(file.data, file.size, &options) == SRT_INVALID_ARGUMENT, "threads");
  options = Options(1, "mmx", nullptr);
  const int32_t code = load(file.data, file.size, &options);
  Expect(code == SRT_INVALID_ARGUMENT || code == SRT_UNSUPPORTED, "isa: %d", code);
  Expect(std::strstr(error.text, "mmx") != nullptr, "isa: %s", error.text);
  options = Options(1, nullptr, nullptr);
  options.tune = 9;
  Expect(load(file.data, file.size, &options) == SRT_INVALID_ARGUMENT, "tune");
  options = Options(1, nullptr, nullptr);
  for (size_t size = 0; size < file.size; size += size < 300 ? 1 : 97) {
    const File cut(std::string(static_cast<const char*>(file.data), size));
    Expect(load(cut.data, cut.size, &options) == SRT_MODEL_FORMAT, "cut at %zu", size);
  }
  for (size_t at = 0; at < file.size; at += 3) {
    std::string bytes(static_cast<const char*>(file.data), file.size);
    bytes[at] = static_cast<char>(bytes[at] ^ 0x41);
    const File corrupt(bytes);
    Expect(load(corrupt.data, corrupt.size, &options) == SRT_MODEL_FORMAT, "byte %zu", at);
  }
  Expect(srt_model_load(file.data, 10, &options, &model, nullptr) == SRT_MODEL_FORMAT,
         "NULL error");

  Expect(load(file.data, file.size, &options) == SRT_OK, "load");
  const std::vector<int64_t> shapes[] = {
      {1, 3, 4},     {1, 4, 4, 4}, {1, 3, 4, 4, 4}, {},
      {-1, 3, 4, 4}, {1, 3, 0, 4}, {0, 3, 4, 4},    {int64_t{1} << 62, 3, int64_t{1} << 62, 4}};
  for (const auto& dims : shapes) {
    const srt_shape shape = Shape(dims);
    srt_plan* plan = nullptr;
    error = srt_error();
    const int32_t made = srt_plan_make(model, &shape, 1, &plan, &error);
    Expect(made != SRT_OK && plan == nullptr && error.text[0] != 0, "a shape of rank %zu is taken",
           dims.size());
    if (plan != nullptr) srt_plan_free(plan);
  }
  for (const int32_t rank : {-1, 9, 1 << 30}) {
    srt_shape shape = Shape({1, 3, 4, 4});
    shape.rank = rank;
    srt_plan* plan = nullptr;
    Expect(srt_plan_make(model, &shape, 1, &plan, &error) == SRT_SHAPE && plan == nullptr, "rank");
  }
  srt_model_free(model);
  srt_model_free(nullptr);
  srt_plan_free(nullptr);
}

// A graph of one node with a constant operand.
std::string OneNode(uint32_t op, const char* name, uint16_t attr, uint8_t input_dtype,
                    const std::vector<int64_t>& dims, bool constant_first) {
  std::vector<float> values(static_cast<size_t>(dims[0] * dims[1]), 0.5f);
  Writer writer;
  for (const char* symbol : {"rows", "columns"}) writer.Symbol(symbol);
  const uint32_t x = writer.Tensor("ids", {-1, -2}, true, nullptr, input_dtype);
  const uint32_t table = writer.Tensor("table", dims, true, &values);
  const uint32_t y = writer.Tensor("y", {}, false, nullptr);
  writer.IntAttr(attr, 0);
  writer.Node(op, name,
              constant_first ? std::vector<uint32_t>{table, x} : std::vector<uint32_t>{x, table},
              y);
  return writer.Finish(x, y);
}

// Indices that no row has, shapes that contradict each other, and more memory than there is.
void TestBadData() {
  const File gather(OneNode(kOpGather, "embedding", kAttrAxis, SRT_I64, {7, 3}, true));
  for (const int threads : {1, 2}) {
    srt_options options = Options(threads, nullptr, nullptr);
    srt_error error = {};
    srt_model* model = nullptr;
    Expect(srt_model_load(gather.data, gather.size, &options, &model, &error) == SRT_OK, "load: %s",
           error.text);
    const srt_shape shape = Shape({2, 5000});
    srt_plan* plan = nullptr;
    Expect(srt_plan_make(model, &shape, 1, &plan, &error) == SRT_OK, "plan: %s", error.text);
    std::vector<int64_t> ids(10000, 6);
    std::vector<float> y(30000);
    void* arena = AlignedBytes(srt_plan_arena_bytes(plan));
    const void* inputs[] = {ids.data()};
    void* outputs[] = {y.data()};
    for (const int64_t bad : {int64_t{7}, int64_t{-8}, INT64_MIN, INT64_MAX}) {
      ids[7777] = bad;
      error = srt_error();
      Expect(srt_plan_run_unchecked(plan, arena, inputs, outputs, nullptr, &error) ==
                     SRT_INVALID_ARGUMENT &&
                 error.code == SRT_INVALID_ARGUMENT,
             "index %lld is taken", static_cast<long long>(bad));
      for (const char* part : {"'embedding' (Gather)", "'ids'", "[-7, 7)"}) {
        Expect(std::strstr(error.text, part) != nullptr, "index: %s", error.text);
      }
      Expect(std::strstr(error.text, std::to_string(bad).c_str()) != nullptr, "%s", error.text);
      Expect(srt_plan_run_unchecked(plan, arena, inputs, outputs, nullptr, nullptr) ==
                 SRT_INVALID_ARGUMENT,
             "code");
    }
    ids[7777] = -7;
    Expect(srt_plan_run_unchecked(plan, arena, inputs, outputs, nullptr, nullptr) == SRT_OK,
           "a run after one that failed");
    std::free(arena);
    srt_plan_free(plan);

    const srt_shape huge = Shape({1 << 10, int64_t{1} << 27});
    Expect(srt_plan_make(model, &huge, 1, &plan, &error) == SRT_OUT_OF_MEMORY && plan == nullptr &&
               std::strstr(error.text, "'embedding' (Gather)") != nullptr,
           "memory: %s", error.text);
    srt_model_free(model);
  }
  setenv("SPARSERT_MEMORY_LIMIT", "1000", 1);
  srt_error error = {};
  srt_model* model = nullptr;
  srt_plan* plan = nullptr;
  Expect(srt_model_load(gather.data, gather.size, nullptr, &model, &error) == SRT_OK, "load");
  const srt_shape small = Shape({2, 5});
  const srt_shape large = Shape({20, 50});
  Expect(srt_plan_make(model, &large, 1, &plan, &error) == SRT_OUT_OF_MEMORY && plan == nullptr &&
             std::strstr(error.text, "1000") != nullptr,
         "limit: %s", error.text);
  Expect(srt_plan_make(model, &small, 1, &plan, &error) == SRT_OK, "limit: %s", error.text);
  srt_plan_free(plan);
  srt_model_free(model);
  for (const char* bad : {"-1", "many", "5 GB"}) {
    setenv("SPARSERT_MEMORY_LIMIT", bad, 1);
    Expect(
        srt_model_load(gather.data, gather.size, nullptr, &model, &error) == SRT_INVALID_ARGUMENT,
        "limit %s is taken", bad);
  }
  unsetenv("SPARSERT_MEMORY_LIMIT");

  const File add(OneNode(kOpBinary, "sum", kAttrFn, SRT_F32, {4, 3}, false));
  Expect(srt_model_load(add.data, add.size, nullptr, &model, &error) == SRT_OK, "%s", error.text);
  const srt_shape contradicts = Shape({5, 3});
  Expect(srt_plan_make(model, &contradicts, 1, &plan, &error) == SRT_SHAPE && plan == nullptr &&
             std::strstr(error.text, "'sum'") != nullptr &&
             std::strstr(error.text, "[5,3]") != nullptr,
         "shapes: %s", error.text);
  srt_model_free(model);
}

// One run on zeros, with every buffer as long as it must be and no longer.
void RunOnZeros(const srt_model* model, const srt_plan* plan) {
  std::vector<void*> inputs, outputs;
  size_t bytes = 0;
  for (int32_t i = 0; i < srt_model_input_count(model); ++i) {
    srt_plan_input_bytes(plan, i, &bytes);
    inputs.push_back(std::calloc(bytes + !bytes, 1));
  }
  for (int32_t i = 0; i < srt_model_output_count(model); ++i) {
    srt_plan_output_bytes(plan, i, &bytes);
    outputs.push_back(std::malloc(bytes + !bytes));
  }
  void* arena = AlignedBytes(srt_plan_arena_bytes(plan));
  srt_plan_run_unchecked(plan, arena, inputs.data(), outputs.data(), nullptr, nullptr);
  std::free(arena);
  for (void* memory : inputs) std::free(memory);
  for (void* memory : outputs) std::free(memory);
}

// Loads and plans with the n-th allocation failing, for every n until none does.
void TestOutOfMemory(const File& file, const char* label, int threads, int tune) {
  int64_t n = 0;
  for (;; ++n) {
    Counter counter;
    counter.fail_at = n;
    const srt_allocator allocator = {&Allocate, &Release, &counter};
    srt_options options = Options(threads, nullptr, &allocator);
    options.tune = tune;
    srt_error error = {};
    srt_model* model = nullptr;
    int32_t code = srt_model_load(file.data, file.size, &options, &model, &error);
    Expect((code == SRT_OK) == (model != nullptr), "%s, allocation %lld: code %d", label,
           static_cast<long long>(n), code);
    if (model != nullptr) {
      std::vector<srt_shape> shapes;
      for (int32_t i = 0; i < srt_model_input_count(model); ++i) {
        srt_tensor_info info = {};
        srt_model_input(model, i, &info);
        for (int32_t d = 0; d < info.shape.rank; ++d) {
          if (info.shape.dims[d] < 0) info.shape.dims[d] = 8;
        }
        shapes.push_back(info.shape);
      }
      srt_plan* plan = nullptr;
      code =
          srt_plan_make(model, shapes.data(), static_cast<int32_t>(shapes.size()), &plan, &error);
      Expect((code == SRT_OK) == (plan != nullptr), "%s: plan without memory", label);
      if (plan == nullptr) {
        // The same model must be able to plan once there is memory.
        const int32_t again = srt_plan_make(model, shapes.data(),
                                            static_cast<int32_t>(shapes.size()), &plan, nullptr);
        Expect(again == SRT_OK, "%s: planning again after allocation %lld failed gives %d", label,
               static_cast<long long>(n), again);
      }
      if (plan != nullptr && counter.calls <= n) RunOnZeros(model, plan);
      srt_plan_free(plan);
      srt_model_free(model);
    }
    const bool failed = counter.calls > n;
    Expect(!failed || code == SRT_OUT_OF_MEMORY, "%s: allocation %lld of %lld fails: %d (%s)",
           label, static_cast<long long>(n), static_cast<long long>(counter.calls), code,
           error.text);
    Expect(counter.live.empty(), "%s: allocation %lld fails: %zu blocks leak", label,
           static_cast<long long>(n), counter.live.size());
    Expect(counter.sizes_match, "%s: released with another size", label);
    if (!failed) break;
  }
  std::printf("%s, %d threads: %lld allocations, each failed once\n", label, threads,
              static_cast<long long>(n));
}

std::string ReadFile(const char* path) {
  std::FILE* file = std::fopen(path, "rb");
  if (file == nullptr) {
    std::fprintf(stderr, "cannot open %s\n", path);
    std::exit(2);
  }
  std::string bytes;
  char buffer[4096];
  for (size_t n; (n = std::fread(buffer, 1, sizeof(buffer), file)) != 0;) bytes.append(buffer, n);
  std::fclose(file);
  return bytes;
}

// Runs a plan of the level whose weights are `w`.
void RunLevel(const srt_plan* plan, const Weights& w, const char* when) {
  constexpr int64_t kN = 2, kH = 5, kV = 6;
  std::vector<float> x(static_cast<size_t>(kN * kIn * kH * kV));
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i * 7 % 23) * 0.125f - 1.0f;
  std::vector<float> y(static_cast<size_t>(kN * kOut));
  const File arena(std::string(srt_plan_arena_bytes(plan), '\0'));
  const void* inputs[] = {x.data()};
  void* outputs[] = {y.data()};
  Expect(srt_plan_run_unchecked(plan, arena.data, inputs, outputs, nullptr, nullptr) == SRT_OK,
         "%s: run", when);
  const std::vector<double> want = Reference(w, x.data(), kN, kH, kV);
  for (size_t i = 0; i < y.size(); ++i) {
    Expect(std::fabs(y[i] - want[i]) <= 1e-4 * (1 + std::fabs(want[i])),
           "%s: output %zu is %g, not %g", when, i, static_cast<double>(y[i]), want[i]);
  }
}

void TestLevels(const File& file, const File& without, const char* isa) {
  Counter counter;
  const srt_allocator allocator = {&Allocate, &Release, &counter};
  srt_options options = Options(1, isa, &allocator);
  srt_error error = {};
  srt_model* model = nullptr;
  Expect(srt_model_load(file.data, file.size, &options, &model, &error) == SRT_OK, "load: %s",
         error.text);
  if (model == nullptr) return;
  Expect(srt_model_level_count(model) == 2 && srt_model_level(model) == 0, "levels");
  const char* name = nullptr;
  size_t bytes = 0;
  Expect(
      srt_model_level_name(model, 1, &name, &bytes) == SRT_OK && std::string(name, bytes) == "fast",
      "name of a level");
  Expect(srt_model_level_name(model, 2, &name, &bytes) == SRT_INVALID_ARGUMENT, "no level 2");
  srt_level_info info = {};
  Expect(srt_model_level_info(model, 2, &info) == SRT_INVALID_ARGUMENT, "no info of level 2");
  for (int32_t level = 0; level < 2; ++level) {
    const Weights w = level == 0 ? MakeWeights() : FastWeights();
    uint64_t nonzeros = 0;
    for (const float value : w.linear) nonzeros += value != 0;
    // Those of the row whose scale is 0 count: they are kept.
    for (size_t i = 0; i < w.conv.size(); ++i) {
      nonzeros += MakeWeights().conv[i] != 0 && (level == 0 || i % 2 == 1);
    }
    Expect(srt_model_level_info(model, level, &info) == SRT_OK &&
               info.weights == w.linear.size() + w.conv.size() && info.nonzeros == nonzeros &&
               info.file_bytes > 0 && info.packed_bytes == 0,
           "level %d: %llu of %llu", level, static_cast<unsigned long long>(info.nonzeros),
           static_cast<unsigned long long>(info.weights));
  }
  const srt_shape shape = Shape({2, kIn, 5, 6});
  srt_plan* accurate = nullptr;
  srt_plan* fast = nullptr;
  Expect(srt_plan_make(model, &shape, 1, &accurate, &error) == SRT_OK, "plan: %s", error.text);
  Expect(srt_model_set_level(model, "faster", &error) == SRT_INVALID_ARGUMENT &&
             std::strstr(error.text, "accurate, fast") != nullptr,
         "no such level: %s", error.text);
  Expect(srt_model_set_level(model, "fast", &error) == SRT_OK && srt_model_level(model) == 1,
         "set level: %s", error.text);
  Expect(srt_plan_make(model, &shape, 1, &fast, &error) == SRT_OK, "plan: %s", error.text);
  if (accurate != nullptr && fast != nullptr) {
    RunLevel(accurate, MakeWeights(), "a plan of the level before");
    RunLevel(fast, FastWeights(), "a plan of the level in use");
    const uint64_t packed = srt_model_weight_bytes(model);
    Expect(srt_model_level_info(model, 1, &info) == SRT_OK && info.packed_bytes > 0, "packed");
    Expect(srt_model_drop_level(model, "fast", &error) == SRT_OK, "drop: %s", error.text);
    RunLevel(fast, FastWeights(), "a plan of a level that is to go");
    srt_plan_free(fast);
    Expect(srt_model_weight_bytes(model) < packed, "a level that was dropped stays");
    Expect(srt_plan_make(model, &shape, 1, &fast, &error) == SRT_OK, "plan: %s", error.text);
    RunLevel(fast, FastWeights(), "a level that was dropped and is back");
    RunLevel(accurate, MakeWeights(), "the other level");
  }
  srt_plan_free(fast);
  srt_plan_free(accurate);
  Expect(srt_model_drop_level(model, "fast", nullptr) == SRT_OK, "drop");
  srt_model_free(model);
  Expect(srt_model_load(without.data, without.size, &options, &model, &error) == SRT_OK, "load");
  Expect(srt_model_level_count(model) == 0 && srt_model_level(model) == 0, "no levels");
  Expect(srt_model_set_level(model, "fast", &error) == SRT_INVALID_ARGUMENT, "no levels to set");
  srt_model_free(model);
  Expect(counter.live.empty() && counter.sizes_match, "levels: %zu blocks leak",
         counter.live.size());
}

}  // namespace

int main(int argc, char** argv) {
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  Expect(srt_abi_version() == SRT_ABI_VERSION, "ABI version");
  const Weights weights = MakeWeights();
  const File file(MakeFile(weights));
  Expect(srt_isa_name(0) != nullptr, "there is an ISA");
  for (int32_t i = 0; srt_isa_name(i) != nullptr; ++i) {
    std::printf("runs on %s\n", srt_isa_name(i));
    for (const int threads : {1, 2}) TestRun(file, weights, srt_isa_name(i), threads);
  }
  const File levels(MakeFile(weights, true));
  for (int32_t i = 0; srt_isa_name(i) != nullptr; ++i) TestLevels(levels, file, srt_isa_name(i));
  TestOutOfMemory(levels, "levels", 1, SRT_TUNE_OFF);
  TestBudget(file, weights);
  TestErrors(file);
  TestBadData();
  TestOutOfMemory(file, "built-in model", 1, SRT_TUNE_AUTO);
  TestOutOfMemory(file, "built-in model", 2, SRT_TUNE_OFF);
  TestOutOfMemory(file, "built-in model, tuned", 1, SRT_TUNE_FULL);
  for (int i = 1; i < argc; ++i) TestOutOfMemory(File(ReadFile(argv[i])), argv[i], 1, SRT_TUNE_OFF);
  std::printf("capi_test: %d checks, %d failures\n", checks, failures);
  return failures == 0 ? 0 : 1;
}
