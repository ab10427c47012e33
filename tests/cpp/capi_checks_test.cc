// What a C program may get wrong: versions, sizes, alignments, counts, pointers, files. Each is a
// code and a text, and nothing is written. Buffers end where their memory ends, for the sanitizers.
#include <unistd.h>

#include <functional>

#include "capi_harness.h"

namespace {

using namespace capi;

void ExpectError(int32_t code, const srt_error& error, int32_t want, const char* text) {
  Expect(code == want && error.code == want, "code %d, expected %d (%s)", code, want, text);
  Expect(std::strstr(error.text, text) != nullptr, "'%s' does not say '%s'", error.text, text);
}

// Everything that a run is given.
struct Buffers {
  explicit Buffers(const srt_plan* plan) {
    Expect(srt_plan_input_bytes(plan, 0, &input_bytes) == SRT_OK, "input bytes");
    Expect(srt_plan_output_bytes(plan, 0, &output_bytes) == SRT_OK, "output bytes");
    arena_bytes = srt_plan_arena_bytes(plan);
    input = AlignedBytes(input_bytes);
    output = AlignedBytes(output_bytes);
    arena = AlignedBytes(arena_bytes);
    auto* x = static_cast<float*>(input);
    for (size_t i = 0; i < input_bytes / 4; ++i) x[i] = static_cast<float>(i * 7 % 23) - 9.5f;
    std::memset(output, 0x5A, output_bytes);
    std::memset(arena, 0x5A, arena_bytes);
    step_ns.assign(static_cast<size_t>(srt_plan_step_count(plan)), 77);
    inputs[0] = input;
    outputs[0] = output;
    run = {sizeof(run),   1,       arena,         arena_bytes, inputs,
           &input_bytes,  outputs, &output_bytes, 1,           static_cast<int32_t>(step_ns.size()),
           step_ns.data()};
  }
  Buffers(const Buffers&) = delete;
  Buffers& operator=(const Buffers&) = delete;
  ~Buffers() {
    for (void* memory : {input, output, arena}) std::free(memory);
  }

  bool IsUntouched() const {
    for (size_t i = 0; i < output_bytes; ++i) {
      if (static_cast<const char*>(output)[i] != 0x5A) return false;
    }
    for (size_t i = 0; i < arena_bytes; ++i) {
      if (static_cast<const char*>(arena)[i] != 0x5A) return false;
    }
    for (const uint64_t ns : step_ns) {
      if (ns != 77) return false;
    }
    return true;
  }

  void *input, *output, *arena;
  size_t input_bytes = 0, output_bytes = 0, arena_bytes = 0;
  const void* inputs[1];
  void* outputs[1];
  std::vector<uint64_t> step_ns;
  srt_run run;
};

char* Bytes(void* memory) { return static_cast<char*>(memory); }

void TestRuns(const File& file, const Weights& w) {
  const srt_options options = Options(1, nullptr, nullptr);
  srt_error error = {};
  srt_model* model = nullptr;
  Expect(srt_model_load(file.data, file.size, &options, &model, &error) == SRT_OK, "%s",
         error.text);
  const int64_t n = 2, h = 5, v = 7;
  const srt_shape shape = Shape({n, kIn, h, v});
  srt_plan* plan = nullptr;
  Expect(srt_plan_make(model, &shape, 1, &plan, &error) == SRT_OK, "%s", error.text);

  srt_shape got = {};
  size_t bytes = 0;
  Expect(srt_plan_input_shape(plan, 0, &got) == SRT_OK && got.rank == 4 && got.dims[3] == v,
         "input shape");
  Expect(srt_plan_output_bytes(plan, 0, &bytes) == SRT_OK && bytes == n * kOut * 4, "bytes");
  for (const int32_t bad : {-1, 1, INT32_MAX}) {
    bytes = 99;
    Expect(srt_plan_input_shape(plan, bad, &got) == SRT_INVALID_ARGUMENT, "shape %d", bad);
    Expect(srt_plan_output_shape(plan, bad, &got) == SRT_INVALID_ARGUMENT, "shape %d", bad);
    Expect(srt_plan_input_bytes(plan, bad, &bytes) == SRT_INVALID_ARGUMENT, "bytes %d", bad);
    Expect(srt_plan_output_bytes(plan, bad, &bytes) == SRT_INVALID_ARGUMENT, "bytes %d", bad);
    Expect(bytes == 99, "bytes of tensor %d", bad);
  }

  using Spoil = std::function<void(Buffers*)>;
  const std::pair<const char*, Spoil> cases[] = {
      {"srt_run is", [](Buffers* b) { b->run.struct_bytes -= 8; }},
      {"the arena is", [](Buffers* b) { b->run.arena_bytes -= 1; }},
      {"the arena is 0 bytes", [](Buffers* b) { b->run.arena_bytes = 0; }},
      {"the arena is NULL", [](Buffers* b) { b->run.arena = nullptr; }},
      {"64-byte aligned", [](Buffers* b) { b->run.arena = Bytes(b->arena) + 32; }},
      {"0 inputs, the model has 1", [](Buffers* b) { b->run.input_count = 0; }},
      {"2 inputs", [](Buffers* b) { b->run.input_count = 2; }},
      {"-1 outputs", [](Buffers* b) { b->run.output_count = -1; }},
      {"inputs or input_bytes", [](Buffers* b) { b->run.inputs = nullptr; }},
      {"outputs or output_bytes", [](Buffers* b) { b->run.output_bytes = nullptr; }},
      {"input 0 'image' is 836 bytes, expected 840", [](Buffers* b) { b->input_bytes -= 4; }},
      {"output 0 'logits' is 44 bytes, expected 40", [](Buffers* b) { b->output_bytes += 4; }},
      {"input 0 'image' is NULL", [](Buffers* b) { b->inputs[0] = nullptr; }},
      {"output 0 'logits' is NULL", [](Buffers* b) { b->outputs[0] = nullptr; }},
      {"'image' is not aligned", [](Buffers* b) { b->inputs[0] = Bytes(b->input) + 2; }},
      {"'logits' is not aligned", [](Buffers* b) { b->outputs[0] = Bytes(b->output) + 1; }},
      {"'logits' overlaps", [](Buffers* b) { b->outputs[0] = Bytes(b->input) + 36; }},
      {"'logits' overlaps", [](Buffers* b) { b->outputs[0] = Bytes(b->arena) + 64; }},
      {"'image' overlaps", [](Buffers* b) { b->inputs[0] = b->arena; }},
      {"room for 1 steps", [](Buffers* b) { b->run.step_count = 1; }},
  };
  for (const auto& [text, spoil] : cases) {
    Buffers b(plan);
    const size_t output_bytes = b.output_bytes;
    spoil(&b);
    error = srt_error();
    ExpectError(srt_plan_run(plan, &b.run, &error), error, SRT_INVALID_ARGUMENT, text);
    Expect(srt_plan_run(plan, &b.run, nullptr) == SRT_INVALID_ARGUMENT, "%s: no error", text);
    b.output_bytes = output_bytes;
    Expect(b.IsUntouched(), "%s: something was written", text);
  }
  Buffers b(plan);
  error = srt_error();
  ExpectError(srt_plan_run(nullptr, &b.run, &error), error, SRT_INVALID_ARGUMENT, "plan is NULL");
  ExpectError(srt_plan_run(plan, nullptr, &error), error, SRT_INVALID_ARGUMENT, "run is NULL");
  error = srt_error();
  Expect(srt_plan_run(plan, &b.run, &error) == SRT_OK && error.code == 0, "%s", error.text);
  const std::vector<double> want = Reference(w, static_cast<float*>(b.input), n, h, v);
  const auto* y = static_cast<const float*>(b.output);
  for (size_t i = 0; i < want.size(); ++i) {
    Expect(std::fabs(y[i] - want[i]) <= 1e-4 * (1 + std::fabs(want[i])), "output %zu is %g", i,
           static_cast<double>(y[i]));
  }
  const std::vector<float> first(y, y + want.size());
  b.run.step_ns = nullptr;  // then their count says nothing
  b.run.step_count = 0;
  std::memset(b.output, 0, b.output_bytes);
  Expect(srt_plan_run(plan, &b.run, nullptr) == SRT_OK &&
             std::memcmp(y, first.data(), b.output_bytes) == 0,
         "the second run differs");
  srt_plan_free(plan);
  srt_model_free(model);
}

void TestPlans(const File& file) {
  srt_error error = {};
  srt_model* model = nullptr;
  Expect(srt_model_load(file.data, file.size, nullptr, &model, &error) == SRT_OK, "load");
  // One shape, and memory for no more.
  const std::vector<srt_shape> shapes(1, Shape({1, kIn, 4, 4}));
  const srt_shape* shape = shapes.data();
  srt_plan* plan = nullptr;
  for (const int32_t count : {-1, 0, 2, INT32_MAX}) {
    ExpectError(srt_plan_make(model, shape, count, &plan, &error), error, SRT_INVALID_ARGUMENT,
                "shapes, the model has 1 inputs");
    Expect(plan == nullptr, "a plan of %d shapes", count);
  }
  ExpectError(srt_plan_make(model, nullptr, 1, &plan, &error), error, SRT_INVALID_ARGUMENT,
              "shapes is NULL");
  ExpectError(srt_plan_make(nullptr, shape, 1, &plan, &error), error, SRT_INVALID_ARGUMENT,
              "model is NULL");
  ExpectError(srt_plan_make(model, shape, 1, nullptr, &error), error, SRT_INVALID_ARGUMENT,
              "plan is NULL");
  // Values of an input that no plan depends on are checked as well.
  std::vector<float> value(kIn * 16 + 1);
  const void* values[] = {value.data()};
  size_t bytes = kIn * 64;
  auto make = [&] {
    return srt_plan_make_valued(model, shape, 1, values, &bytes, nullptr, 0, &plan, &error);
  };
  Expect(make() == SRT_OK, "%s", error.text);
  srt_plan_free(plan);
  bytes -= 4;
  ExpectError(make(), error, SRT_INVALID_ARGUMENT, "'image' is 188 bytes, expected 192");
  bytes += 4;
  values[0] = Bytes(value.data()) + 1;
  ExpectError(make(), error, SRT_INVALID_ARGUMENT, "misaligned");
  ExpectError(srt_plan_make_valued(model, shape, 1, values, nullptr, nullptr, 0, &plan, &error),
              error, SRT_INVALID_ARGUMENT, "value_bytes is NULL");
  srt_model_free(model);
}

void TestLoads(const File& file) {
  srt_error error = {};
  srt_model* model = nullptr;
  auto expect = [&](int32_t code, int32_t want, const char* text) {
    ExpectError(code, error, want, text);
    Expect(model == nullptr, "%s: there is a model", text);
    error = srt_error();
  };
  for (const int32_t version : {0, SRT_ABI_VERSION - 1, SRT_ABI_VERSION + 1}) {
    srt_options options = SRT_OPTIONS_INIT;
    options.abi_version = version;
    expect(srt_model_load(file.data, file.size, &options, &model, &error), SRT_INVALID_ARGUMENT,
           "ABI version");
  }
  srt_options options = SRT_OPTIONS_INIT;
  options.struct_bytes += 8;
  expect(srt_model_load(file.data, file.size, &options, &model, &error), SRT_INVALID_ARGUMENT,
         "srt_options is");
  options = SRT_OPTIONS_INIT;
  const srt_allocator half = {&Allocate, nullptr, nullptr};
  options.allocator = &half;
  expect(srt_model_load(file.data, file.size, &options, &model, &error), SRT_INVALID_ARGUMENT,
         "allocator is NULL");
  expect(srt_model_load(nullptr, 0, nullptr, &model, &error), SRT_INVALID_ARGUMENT,
         "bytes is NULL");
  expect(srt_model_load(file.data, file.size, nullptr, nullptr, &error), SRT_INVALID_ARGUMENT,
         "model is NULL");
  const File shifted("12345678" + std::string(static_cast<char*>(file.data), file.size));
  expect(srt_model_load(Bytes(shifted.data) + 8, file.size, nullptr, &model, &error),
         SRT_INVALID_ARGUMENT, "64-byte aligned");

  char folder[] = "capi_checks_XXXXXX";
  Expect(mkdtemp(folder) != nullptr, "a folder for files");
  const std::string path = std::string(folder) + "/model.sprt";
  auto write = [&](size_t size) {
    std::FILE* out = std::fopen(path.c_str(), "wb");
    Expect(out != nullptr && std::fwrite(file.data, 1, size, out) == size, "write");
    std::fclose(out);
  };
  expect(srt_model_load_file(path.c_str(), nullptr, &model, &error), SRT_FILE, path.c_str());
  expect(srt_model_load_file(folder, nullptr, &model, &error), SRT_FILE, "regular file");
  expect(srt_model_load_file(nullptr, nullptr, &model, &error), SRT_INVALID_ARGUMENT,
         "path is NULL");
  write(0);
  expect(srt_model_load_file(path.c_str(), nullptr, &model, &error), SRT_FILE, "empty");
  for (const size_t size : {size_t{7}, size_t{255}, size_t{256}, file.size - 1}) {
    write(size);
    expect(srt_model_load_file(path.c_str(), nullptr, &model, &error), SRT_MODEL_FORMAT,
           path.c_str());
  }
  write(file.size);
  Counter counter;
  const srt_allocator allocator = {&Allocate, &Release, &counter};
  options = Options(1, nullptr, &allocator);
  Expect(srt_model_load_file(path.c_str(), &options, &model, &error) == SRT_OK, "%s", error.text);
  std::remove(path.c_str());  // the mapping stays
  rmdir(folder);
  srt_model* copy = nullptr;
  Expect(srt_model_load(file.data, file.size, &options, &copy, &error) == SRT_OK, "%s", error.text);
  std::vector<char> results[2];
  for (int i = 0; i < 2; ++i) {
    const srt_shape shape = Shape({3, kIn, 8, 9});
    srt_plan* plan = nullptr;
    Expect(srt_plan_make(i == 0 ? model : copy, &shape, 1, &plan, &error) == SRT_OK, "%s",
           error.text);
    Buffers b(plan);
    Expect(srt_plan_run(plan, &b.run, &error) == SRT_OK, "%s", error.text);
    results[i].assign(Bytes(b.output), Bytes(b.output) + b.output_bytes);
    srt_plan_free(plan);
  }
  Expect(results[0] == results[1], "a mapped file and its bytes differ");
  srt_model_free(model);
  srt_model_free(copy);
  Expect(counter.live.empty() && counter.sizes_match, "%zu blocks leak", counter.live.size());
}

void TestFacts() {
  for (int32_t code = SRT_OK; code <= SRT_FILE; ++code) {
    Expect(std::strcmp(srt_status_text(code), srt_status_text(-1)) != 0, "text of code %d", code);
  }
  Expect(srt_status_text(SRT_FILE + 1) == srt_status_text(-1), "there are more codes");
  Expect(srt_dtype_bytes(SRT_F32) == 4 && srt_dtype_bytes(SRT_BOOL) == 1 &&
             srt_dtype_bytes(SRT_U64) == 8 && srt_dtype_bytes(SRT_F16) == 2,
         "sizes of elements");
  for (const int32_t dtype : {-1, 0, 8, 257}) {
    Expect(srt_dtype_bytes(dtype) == 0, "dtype %d", dtype);
  }
  Expect(std::strchr(srt_version(), '.') != nullptr, "version %s", srt_version());
}

}  // namespace

int main() {
  const Weights weights = MakeWeights();
  const File file(MakeFile(weights));
  TestRuns(file, weights);
  TestPlans(file);
  TestLoads(file);
  TestFacts();
  std::printf("capi_checks_test: %d checks, %d failures\n", checks, failures);
  return failures == 0 ? 0 : 1;
}
