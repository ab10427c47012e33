// What the tests of the C interface share: a counting allocator, and a .sprt file built here byte
// by byte.
#pragma once

#include <cmath>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "include/sparsert.h"

namespace capi {

inline int failures = 0;
inline int checks = 0;

inline void Expect(bool condition, const char* format, ...) {
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

inline void* Allocate(void* context, size_t bytes, size_t alignment) {
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

inline void Release(void* context, void* memory, size_t bytes) {
  auto* counter = static_cast<Counter*>(context);
  const auto found = counter->live.find(memory);
  if (found == counter->live.end() || found->second != bytes) counter->sizes_match = false;
  if (found != counter->live.end()) counter->live.erase(found);
  std::free(memory);
}

inline void* AlignedBytes(size_t bytes) {
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

constexpr uint32_t kOpConv = 1, kOpLinear = 3, kOpBinary = 7, kOpGlobalAveragePool = 10,
                   kOpFlatten = 16, kOpGather = 22;
constexpr uint16_t kAttrAct = 1, kAttrPads = 5, kAttrFn = 11, kAttrAxis = 17;
constexpr uint8_t kInt = 0, kIntList = 2;
constexpr uint8_t kUnknownRank = 254;

template <typename T>
void Put(std::string* to, T value) {
  to->append(reinterpret_cast<const char*>(&value), sizeof(value));
}

inline uint32_t Crc(const std::string& bytes, size_t from) {
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
                  const std::vector<float>* values, uint8_t dtype = SRT_F32) {
    if (values == nullptr) return Tensor(name, dims, known_rank, std::string(), 0, dtype);
    const std::string bytes(reinterpret_cast<const char*>(values->data()), values->size() * 4);
    return Tensor(name, dims, known_rank, bytes, values->size(), dtype);
  }
  // `elements`: of a constant, as `bytes` hold them; 0: an activation.
  uint32_t Tensor(const char* name, const std::vector<int64_t>& dims, bool known_rank,
                  const std::string& bytes, uint64_t elements, uint8_t dtype) {
    const bool values = elements != 0;
    std::string& t = sections_[kTensors];
    PutName(&t, name);
    Put<uint8_t>(&t, dtype);
    Put<uint8_t>(&t, values);
    Put<uint8_t>(&t, 0);
    Put<uint8_t>(&t, known_rank ? static_cast<uint8_t>(dims.size()) : kUnknownRank);
    Put<uint32_t>(&t, static_cast<uint32_t>(sections_[kDims].size() / 8));
    for (const int64_t dim : dims) Put<int64_t>(&sections_[kDims], dim);
    std::string& data = sections_[kData];
    if (values) data.resize((data.size() + 63) / 64 * 64);
    Put<uint64_t>(&t, values ? data.size() : 0);
    Put<uint64_t>(&t, bytes.size());
    Put<uint64_t>(&t, elements);
    Put<uint16_t>(&t, values);                                   // block rows
    Put<uint16_t>(&t, values);                                   // block columns
    Put<uint8_t>(&t, values ? dtype : static_cast<uint8_t>(0));  // of the values
    Put<uint8_t>(&t, 0);
    Put<uint16_t>(&t, 0);
    Put<uint32_t>(&t, 0xffffffffu);
    t.resize((t.size() + 63) / 64 * 64);
    data += bytes;
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

  // `levels`: how many, from tensor `levels_first` on.
  std::string Finish(uint32_t input, uint32_t output, uint32_t levels = 0,
                     uint32_t levels_first = 0) {
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
    Put<uint16_t>(&file, levels != 0);
    Put<uint32_t>(&file, 256);
    Put<uint64_t>(&file, 256 + body.size());
    Put<uint64_t>(&file, 0);  // checksum and flags
    file += table;
    Put<uint32_t>(&file, levels);
    Put<uint32_t>(&file, levels_first);
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

inline Weights MakeWeights() {
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

// The same of the level "fast": every other weight of the convolution, its rows scaled, other
// biases.
inline Weights FastWeights() {
  Weights w = MakeWeights();
  for (size_t i = 0; i < w.conv.size(); ++i) {
    w.conv[i] *= i % 2 == 0 ? 0.0f : static_cast<float>(i / (kIn * 9)) * 0.5f - 3.0f;
  }
  for (float& bias : w.conv_bias) bias = 1.0f - bias;
  return w;
}

// With `has_levels`: MakeWeights() is the level "accurate" of the file, FastWeights() "fast".
inline std::string MakeFile(const Weights& w, bool has_levels = false) {
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
  if (!has_levels) return writer.Finish(x, y);
  const size_t n = w.conv.size();
  std::string bits((n + 7) / 8, '\0');
  for (size_t i = 1; i < n; i += 2) bits[i / 8] = static_cast<char>(bits[i / 8] | 1 << i % 8);
  std::vector<float> scales;
  for (int64_t i = 0; i < kMiddle; ++i) scales.push_back(static_cast<float>(i) * 0.5f - 3.0f);
  const Weights fast = FastWeights();
  const auto length = [](const auto& values) { return static_cast<int64_t>(values.size()); };
  const uint32_t keep = writer.Tensor("keep", {length(bits)}, true, bits, bits.size(), SRT_U8);
  const uint32_t scale = writer.Tensor("scale", {kMiddle}, true, &scales);
  const uint32_t bias = writer.Tensor("bias", {kMiddle}, true, &fast.conv_bias);
  uint32_t first = 0;
  for (const bool is_fast : {false, true}) {
    constexpr uint32_t kNone = 0xffffffffu;
    std::string rows;
    for (const uint32_t value : {w1, 1u, is_fast ? keep : kNone, is_fast ? scale : kNone}) {
      Put<uint32_t>(&rows, value);
    }
    for (const uint32_t value : {b1, 0u, is_fast ? bias : kNone, kNone}) {
      Put<uint32_t>(&rows, value);
    }
    const uint32_t level =
        writer.Tensor(is_fast ? "fast" : "accurate", {2, 4}, true, rows, 8, SRT_U32);
    if (!is_fast) first = level;
  }
  return writer.Finish(x, y, 2, first);
}

inline std::vector<double> Reference(const Weights& w, const float* x, int64_t n, int64_t h,
                                     int64_t v) {
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

inline srt_shape Shape(const std::vector<int64_t>& dims) {
  srt_shape shape = {};
  shape.rank = static_cast<int32_t>(dims.size());
  for (size_t d = 0; d < dims.size(); ++d) shape.dims[d] = dims[d];
  return shape;
}

inline srt_options Options(int32_t threads, const char* isa, const srt_allocator* allocator) {
  srt_options options = SRT_OPTIONS_INIT;
  options.tune = SRT_TUNE_OFF;
  options.threads = threads;
  options.isa = isa;
  options.allocator = allocator;
  return options;
}

}  // namespace capi
