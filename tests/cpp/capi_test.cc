// The C interface through sparsert.h alone: a file built here byte by byte, loaded, planned and run
// with a counting allocator that also fails at every single allocation in turn.
//
//   capi_test            the built-in model
//   capi_test FILE...    the allocation tests on .sprt files too, with 8 for every symbol, and one
//   run
#include "include/sparsert.h"

#include <cmath>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <vector>

namespace {

int failures = 0;
int checks = 0;

void Expect(bool condition, const char* format, ...) {
  ++checks;
  if (condition || ++failures > 40) return;
  std::va_list args;
  va_start(args, format);
  std::printf("FAIL ");
  std::vprintf(format, args);
  std::printf("\n");
  va_end(args);
}

// ---- memory -------------------------------------------------------------------------------------

// Counts what it gives out; from allocation number `fail_at` on (once) it has none.
struct Counter {
  int64_t calls = 0;
  int64_t fail_at = -1;
  std::map<void*, size_t> live;
  bool sizes_match = true;
  bool aligned = true;
};

void* Allocate(void* context, size_t bytes, size_t alignment) {
  auto* counter = static_cast<Counter*>(context);
  if (counter->calls++ == counter->fail_at) return nullptr;
  void* memory = nullptr;
  if (posix_memalign(&memory, alignment < sizeof(void*) ? sizeof(void*) : alignment,
                     bytes == 0 ? 1 : bytes) != 0) {
    return nullptr;
  }
  counter->aligned = counter->aligned && reinterpret_cast<uintptr_t>(memory) % alignment == 0;
  std::memset(memory, 0xA5, bytes);
  counter->live[memory] = bytes;
  return memory;
}

void Release(void* context, void* memory, size_t bytes) {
  auto* counter = static_cast<Counter*>(context);
  const auto found = counter->live.find(memory);
  if (found == counter->live.end() || found->second != bytes) counter->sizes_match = false;
  if (found != counter->live.end()) counter->live.erase(found);
  std::free(memory);
}

void* AlignedBytes(size_t bytes) {
  void* memory = nullptr;
  if (posix_memalign(&memory, 64, bytes == 0 ? 1 : bytes) != 0) std::abort();
  return memory;
}

// A copy of a file that ends where its memory ends.
struct File {
  explicit File(const std::string& bytes) : data(AlignedBytes(bytes.size())), size(bytes.size()) {
    std::memcpy(data, bytes.data(), bytes.size());
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  ~File() { std::free(data); }

  void* data;
  size_t size;
};

// ---- a .sprt file, written as docs/format.md says -----------------------------------------------

enum Section {
  kTensors,
  kNodes,
  kNodeIo,
  kAttrs,
  kInts,
  kFloats,
  kDims,
  kSymbols,
  kGraphIo,
  kStrings,
  kData,
  kMetadata,
  kSections
};

constexpr uint32_t kOpConv = 1, kOpLinear = 3, kOpGlobalAveragePool = 10, kOpFlatten = 16;
constexpr uint16_t kAttrAct = 1, kAttrPads = 5, kAttrAxis = 17;
constexpr uint8_t kInt = 0, kIntList = 2;
constexpr uint8_t kUnknownRank = 254;

template <typename T>
void Put(std::string* to, T value) {
  to->append(reinterpret_cast<const char*>(&value), sizeof(value));
}

uint32_t Crc(const std::string& bytes, size_t from) {
  uint32_t crc = 0xffffffffu;
  for (size_t i = from; i < bytes.size(); ++i) {
    crc ^= static_cast<uint8_t>(bytes[i]);
    for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
  }
  return ~crc;
}

class Writer {
 public:
  // Negative dims are symbols; no `values`: an activation. Returns the tensor's number.
  uint32_t Tensor(const char* name, const std::vector<int64_t>& dims, bool known_rank,
                  const std::vector<float>* values) {
    std::string& t = sections_[kTensors];
    PutName(&t, name);
    Put<uint8_t>(&t, 1);
    Put<uint8_t>(&t, values != nullptr);
    Put<uint8_t>(&t, 0);
    Put<uint8_t>(&t, known_rank ? static_cast<uint8_t>(dims.size()) : kUnknownRank);
    Put<uint32_t>(&t, static_cast<uint32_t>(sections_[kDims].size() / 8));
    for (const int64_t dim : dims) Put<int64_t>(&sections_[kDims], dim);
    std::string& data = sections_[kData];
    if (values != nullptr) data.resize((data.size() + 63) / 64 * 64);
    Put<uint64_t>(&t, values != nullptr ? data.size() : 0);
    Put<uint64_t>(&t, values != nullptr ? values->size() * 4 : 0);
    Put<uint64_t>(&t, values != nullptr ? values->size() : 0);
    Put<uint16_t>(&t, values != nullptr);  // block rows
    Put<uint16_t>(&t, values != nullptr);  // block columns
    Put<uint8_t>(&t, values != nullptr);   // f32 values
    Put<uint8_t>(&t, 0);
    Put<uint16_t>(&t, 0);
    Put<uint32_t>(&t, 0xffffffffu);
    t.resize((t.size() + 63) / 64 * 64);
    if (values != nullptr) {
      data.append(reinterpret_cast<const char*>(values->data()), values->size() * 4);
    }
    return tensors_++;
  }

  void IntAttr(uint16_t key, int64_t value) { PutAttr(key, kInt, 1, value); }
  void IntsAttr(uint16_t key, const std::vector<int64_t>& values) {
    PutAttr(key, kIntList, static_cast<uint32_t>(values.size()),
            static_cast<int64_t>(sections_[kInts].size() / 8));
    for (const int64_t value : values) Put<int64_t>(&sections_[kInts], value);
  }

  // Takes the attributes written since the node before.
  void Node(uint32_t op, const char* name, const std::vector<uint32_t>& inputs, uint32_t output) {
    std::string& n = sections_[kNodes];
    Put<uint16_t>(&n, static_cast<uint16_t>(op));
    Put<uint16_t>(&n, 1);
    PutName(&n, name);
    Put<uint32_t>(&n, static_cast<uint32_t>(sections_[kNodeIo].size() / 4));
    for (const uint32_t input : inputs) Put<uint32_t>(&sections_[kNodeIo], input);
    Put<uint32_t>(&sections_[kNodeIo], output);
    Put<uint16_t>(&n, static_cast<uint16_t>(inputs.size()));
    Put<uint16_t>(&n, 1);
    Put<uint32_t>(&n, attrs_taken_);
    Put<uint16_t>(&n, static_cast<uint16_t>(attrs_ - attrs_taken_));
    n.resize((n.size() + 39) / 40 * 40);
    attrs_taken_ = attrs_;
  }

  void Symbol(const char* name) { PutName(&sections_[kSymbols], name); }

  std::string Finish(uint32_t input, uint32_t output) {
    for (const uint32_t value : {1u, 1u, input, output}) Put<uint32_t>(&sections_[kGraphIo], value);
    sections_[kMetadata] = "{}";
    std::string body, table;
    for (int s = 0; s < kSections; ++s) {
      body.resize((body.size() + 63) / 64 * 64);
      Put<uint64_t>(&table, 256 + body.size());
      Put<uint64_t>(&table, sections_[s].size());
      body += sections_[s];
    }
    std::string file("\x89SPRT\r\n\x1a", 8);
    Put<uint16_t>(&file, 1);
    Put<uint16_t>(&file, 0);
    Put<uint32_t>(&file, 256);
    Put<uint64_t>(&file, 256 + body.size());
    Put<uint64_t>(&file, 0);  // checksum and flags
    file += table;
    file.resize(256);
    file += body;
    const uint32_t crc = Crc(file, 32);
    std::memcpy(&file[24], &crc, sizeof(crc));
    return file;
  }

 private:
  void PutName(std::string* to, const char* name) {
    Put<uint32_t>(to, static_cast<uint32_t>(sections_[kStrings].size()));
    Put<uint32_t>(to, static_cast<uint32_t>(std::strlen(name)));
    sections_[kStrings] += name;
  }
  void PutAttr(uint16_t key, uint8_t type, uint32_t count, int64_t payload) {
    std::string& a = sections_[kAttrs];
    Put<uint16_t>(&a, key);
    Put<uint8_t>(&a, type);
    Put<uint8_t>(&a, 0);
    Put<uint32_t>(&a, count);
    Put<int64_t>(&a, payload);
    ++attrs_;
  }

  std::string sections_[kSections];
  uint32_t tensors_ = 0;
  uint32_t attrs_ = 0;
  uint32_t attrs_taken_ = 0;
};

// ---- the built-in model: Conv 3x3 + Relu, GlobalAveragePool, Flatten, Linear
// ----------------------

constexpr int64_t kIn = 3, kMiddle = 20, kOut = 5;

struct Weights {
  std::vector<float> conv, conv_bias, linear;
};

Weights MakeWeights() {
  Weights w;
  for (int64_t i = 0; i < kMiddle * kIn * 9; ++i) {
    w.conv.push_back(i % 3 == 0 ? static_cast<float>(i % 11 - 5) * 0.125f : 0.0f);
  }
  for (int64_t i = 0; i < kMiddle; ++i) w.conv_bias.push_back(static_cast<float>(i) * 0.25f - 2.0f);
  for (int64_t i = 0; i < kOut * kMiddle; ++i) {
    w.linear.push_back(i % 4 == 1 ? 0.0f : static_cast<float>(i % 7 - 3) * 0.25f);
  }
  return w;
}

std::string MakeFile(const Weights& w) {
  Writer writer;
  for (const char* symbol : {"batch", "height", "width"}) writer.Symbol(symbol);
  const uint32_t x = writer.Tensor("image", {-1, kIn, -2, -3}, true, nullptr);
  const uint32_t w1 = writer.Tensor("w1", {kMiddle, kIn, 3, 3}, true, &w.conv);
  const uint32_t b1 = writer.Tensor("b1", {kMiddle}, true, &w.conv_bias);
  const uint32_t c = writer.Tensor("c", {}, false, nullptr);
  const uint32_t g = writer.Tensor("g", {}, false, nullptr);
  const uint32_t f = writer.Tensor("f", {}, false, nullptr);
  const uint32_t w2 = writer.Tensor("w2", {kOut, kMiddle}, true, &w.linear);
  const uint32_t y = writer.Tensor("logits", {-1, kOut}, true, nullptr);
  writer.IntsAttr(kAttrPads, {1, 1, 1, 1});
  writer.IntAttr(kAttrAct, 1);
  writer.Node(kOpConv, "conv", {x, w1, b1}, c);
  writer.Node(kOpGlobalAveragePool, "pool", {c}, g);
  writer.IntAttr(kAttrAxis, 1);
  writer.Node(kOpFlatten, "flatten", {g}, f);
  writer.Node(kOpLinear, "linear", {f, w2}, y);
  return writer.Finish(x, y);
}

std::vector<double> Reference(const Weights& w, const float* x, int64_t n, int64_t h, int64_t v) {
  std::vector<double> y(static_cast<size_t>(n * kOut));
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t m = 0; m < kMiddle; ++m) {
      double total = 0;
      for (int64_t r = 0; r < h; ++r) {
        for (int64_t c = 0; c < v; ++c) {
          double sum = w.conv_bias[static_cast<size_t>(m)];
          for (int64_t k = 0; k < kIn * 9; ++k) {
            const int64_t rr = r + k % 9 / 3 - 1;
            const int64_t cc = c + k % 3 - 1;
            if (rr < 0 || rr >= h || cc < 0 || cc >= v) continue;
            sum += static_cast<double>(w.conv[static_cast<size_t>(m * kIn * 9 + k)]) *
                   x[((i * kIn + k / 9) * h + rr) * v + cc];
          }
          total += sum > 0 ? sum : 0;
        }
      }
      for (int64_t o = 0; o < kOut; ++o) {
        y[static_cast<size_t>(i * kOut + o)] +=
            w.linear[static_cast<size_t>(o * kMiddle + m)] * total / static_cast<double>(h * v);
      }
    }
  }
  return y;
}

// ---- tests --------------------------------------------------------------------------------------

srt_shape Shape(const std::vector<int64_t>& dims) {
  srt_shape shape = {};
  shape.rank = static_cast<int32_t>(dims.size());
  for (size_t d = 0; d < dims.size(); ++d) shape.dims[d] = dims[d];
  return shape;
}

srt_options Options(int32_t threads, const char* isa, const srt_allocator* allocator) {
  srt_options options = {};
  options.struct_bytes = sizeof(options);
  options.threads = threads;
  options.isa = isa;
  options.allocator = allocator;
  return options;
}

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
    Expect(srt_plan_make(model, &shape, &plan, &error) == SRT_OK, "plan: %s", error.text);
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
      srt_plan_run(plan, arena, inputs, outputs, run == 2 ? step_ns.data() : nullptr);
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
    const int32_t made = srt_plan_make(model, &shape, &plan, &error);
    Expect(made != SRT_OK && plan == nullptr && error.text[0] != 0, "a shape of rank %zu is taken",
           dims.size());
    if (plan != nullptr) srt_plan_free(plan);
  }
  for (const int32_t rank : {-1, 9, 1 << 30}) {
    srt_shape shape = Shape({1, 3, 4, 4});
    shape.rank = rank;
    srt_plan* plan = nullptr;
    Expect(srt_plan_make(model, &shape, &plan, &error) == SRT_SHAPE && plan == nullptr, "rank");
  }
  srt_model_free(model);
  srt_model_free(nullptr);
  srt_plan_free(nullptr);
}

size_t ElementBytes(int32_t dtype) {
  switch (dtype) {
    case SRT_I64:
    case SRT_U64:
    case SRT_F64:
      return 8;
    case SRT_F16:
    case SRT_I16:
    case SRT_U16:
      return 2;
    case SRT_U8:
    case SRT_I8:
    case SRT_BOOL:
      return 1;
    default:
      return 4;
  }
}

size_t Bytes(const srt_shape& shape, int32_t dtype) {
  size_t bytes = ElementBytes(dtype);
  for (int32_t d = 0; d < shape.rank; ++d) bytes *= static_cast<size_t>(shape.dims[d]);
  return bytes;
}

// One run on zeros, with every buffer as long as it must be and no longer.
void RunOnZeros(const srt_model* model, const srt_plan* plan,
                const std::vector<srt_shape>& input_shapes) {
  std::vector<void*> inputs, outputs;
  srt_tensor_info info = {};
  for (int32_t i = 0; i < srt_model_input_count(model); ++i) {
    srt_model_input(model, i, &info);
    const size_t bytes = Bytes(input_shapes[static_cast<size_t>(i)], info.dtype);
    inputs.push_back(std::calloc(bytes + !bytes, 1));
  }
  for (int32_t i = 0; i < srt_model_output_count(model); ++i) {
    srt_shape shape = {};
    srt_model_output(model, i, &info);
    srt_plan_output_shape(plan, i, &shape);
    const size_t bytes = Bytes(shape, info.dtype);
    outputs.push_back(std::malloc(bytes + !bytes));
  }
  void* arena = AlignedBytes(srt_plan_arena_bytes(plan));
  srt_plan_run(plan, arena, inputs.data(), outputs.data(), nullptr);
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
      code = srt_plan_make(model, shapes.data(), &plan, &error);
      Expect((code == SRT_OK) == (plan != nullptr), "%s: plan without memory", label);
      if (plan == nullptr) {
        // The same model must be able to plan once there is memory.
        const int32_t again = srt_plan_make(model, shapes.data(), &plan, nullptr);
        Expect(again == SRT_OK, "%s: planning again after allocation %lld failed gives %d", label,
               static_cast<long long>(n), again);
      }
      if (plan != nullptr && counter.calls <= n) RunOnZeros(model, plan, shapes);
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

}  // namespace

int main(int argc, char** argv) {
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  Expect(srt_abi_version() == SRT_ABI_VERSION, "ABI version");
  const Weights weights = MakeWeights();
  const File file(MakeFile(weights));
  Expect(std::strcmp(srt_isa_name(0), "scalar") == 0, "the first ISA is scalar");
  for (int32_t i = 0; srt_isa_name(i) != nullptr; ++i) {
    std::printf("runs on %s\n", srt_isa_name(i));
    for (const int threads : {1, 2}) TestRun(file, weights, srt_isa_name(i), threads);
  }
  TestErrors(file);
  TestOutOfMemory(file, "built-in model", 1, SRT_TUNE_AUTO);
  TestOutOfMemory(file, "built-in model", 2, SRT_TUNE_OFF);
  TestOutOfMemory(file, "built-in model, tuned", 1, SRT_TUNE_FULL);
  for (int i = 1; i < argc; ++i) TestOutOfMemory(File(ReadFile(argv[i])), argv[i], 1, SRT_TUNE_OFF);
  std::printf("capi_test: %d checks, %d failures\n", checks, failures);
  return failures == 0 ? 0 : 1;
}
