// Harness of the kernel tests: tensors with canaries in their padding, runs on every ISA, compares.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "base/arch.h"
#include "base/cpu.h"
#include "base/functions.h"
#include "base/tensor_desc.h"
#include "kernels/kernel.h"

namespace sparsert {
namespace test {

constexpr uint8_t kCanary = 0xA5;

inline int failures = 0;
inline int checks = 0;

// What the tests are doing, printed with a failure.
inline std::string context;

void Fail(const std::string& what);
void Expect(bool condition, const char* what);

// The instruction sets that this machine runs, scalar first.
const std::vector<Isa>& Isas();

// Deterministic numbers in [lo, hi).
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed * 2654435761u + 88172645463325252ull) {}
  uint64_t Bits() {
    state_ ^= state_ << 13;
    state_ ^= state_ >> 7;
    state_ ^= state_ << 17;
    return state_;
  }
  double Uniform(double lo, double hi) {
    return lo + (hi - lo) * static_cast<double>(Bits() >> 11) / 9007199254740992.0;
  }
  int64_t Int(int64_t lo, int64_t hi) {  // both ends included
    return lo + static_cast<int64_t>(Bits() % static_cast<uint64_t>(hi - lo + 1));
  }

 private:
  uint64_t state_;
};

Shape MakeShape(const std::vector<int64_t>& dims);

// A tensor in its own storage. When rank >= 3, `padding` elements follow each of its planes and
// `image_padding` each of its images; everything outside of the elements holds canaries.
class Tensor {
 public:
  Tensor(DType dtype, const std::vector<int64_t>& dims, int64_t padding = 0,
         int64_t image_padding = 0);

  TensorDesc desc;
  void* data() { return bytes_.data() + kMargin; }
  const void* data() const { return bytes_.data() + kMargin; }
  int64_t elements() const { return desc.shape.elements(); }

  // Offset in elements of the element with this row-major number.
  int64_t Offset(int64_t linear) const;
  template <typename T>
  T& At(int64_t linear) {
    return static_cast<T*>(data())[Offset(linear)];
  }
  template <typename T>
  const T& At(int64_t linear) const {
    return static_cast<const T*>(data())[Offset(linear)];
  }
  float& F(int64_t linear) { return At<float>(linear); }
  float F(int64_t linear) const { return At<float>(linear); }

  void FillUniform(Random* random, double lo, double hi);
  void FillBytes(Random* random);
  void ExpectCanaries() const;

 private:
  static constexpr int64_t kMargin = 64;
  std::vector<uint8_t> bytes_;
};

// Row-major number -> index and back.
std::vector<int64_t> Unravel(int64_t linear, const Shape& shape);
int64_t Ravel(const std::vector<int64_t>& index, const Shape& shape);

// Runs items [0, items) in a few ranges out of order, each with fresh scratch.
void Run(const Kernel& kernel, const void* args, const std::vector<void*>& io, int64_t items,
         size_t scratch_bytes);

// |got - want| <= relative * |want| + absolute; equal infinities, NaN for NaN.
bool Near(double got, double want, double relative, double absolute);
// Compares all elements (want in row-major order) and the canaries.
void ExpectNear(const Tensor& got, const std::vector<double>& want, double relative,
                double absolute);

// Prints what ran; the exit code of a test program.
int Finish(const char* name);

// ---- implementation

inline void Fail(const std::string& what) {
  if (++failures <= 40) std::printf("FAIL %s: %s\n", context.c_str(), what.c_str());
}

inline void Expect(bool condition, const char* what) {
  ++checks;
  if (!condition) Fail(what);
}

inline const std::vector<Isa>& Isas() {
  static const std::vector<Isa> isas = [] {
    std::vector<Isa> list;
#if defined(SRT_SCALAR)
    list.push_back(Isa::kScalar);
#endif
#if defined(SRT_X86)
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
      list.push_back(Isa::kAvx2);
    }
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq")) {
      list.push_back(Isa::kAvx512);
    }
#elif defined(SRT_ARM)
    list.push_back(Isa::kNeon);
#endif
    return list;
  }();
  return isas;
}

inline Shape MakeShape(const std::vector<int64_t>& dims) {
  Shape shape;
  shape.rank = static_cast<int>(dims.size());
  for (int d = 0; d < shape.rank; ++d) shape.dims[d] = dims[static_cast<size_t>(d)];
  return shape;
}

inline Tensor::Tensor(DType dtype, const std::vector<int64_t>& dims, int64_t padding,
                      int64_t image_padding) {
  desc = PlainDesc(dtype, MakeShape(dims));
  int64_t stored = elements();
  if (desc.shape.rank >= 3 && padding + image_padding > 0) {
    desc.strides[1] = desc.plane() + padding;
    desc.strides[0] = desc.shape.dims[1] * desc.strides[1] + image_padding;
    stored = desc.shape.dims[0] * desc.strides[0];
  }
  bytes_.assign(static_cast<size_t>(stored) * DTypeSize(dtype) + 2 * kMargin, kCanary);
}

inline int64_t Tensor::Offset(int64_t linear) const {
  int64_t offset = 0;
  for (int d = desc.shape.rank - 1; d >= 0; --d) {
    offset += linear % desc.shape.dims[d] * desc.strides[d];
    linear /= desc.shape.dims[d];
  }
  return offset;
}

inline void Tensor::FillUniform(Random* random, double lo, double hi) {
  for (int64_t i = 0; i < elements(); ++i) F(i) = static_cast<float>(random->Uniform(lo, hi));
}

inline void Tensor::FillBytes(Random* random) {
  const size_t size = DTypeSize(desc.dtype);
  for (int64_t i = 0; i < elements(); ++i) {
    const uint64_t bits = random->Bits();
    memcpy(static_cast<uint8_t*>(data()) + static_cast<size_t>(Offset(i)) * size, &bits, size);
  }
}

inline void Tensor::ExpectCanaries() const {
  std::vector<uint8_t> used(bytes_.size(), 0);
  const size_t size = DTypeSize(desc.dtype);
  for (int64_t i = 0; i < elements(); ++i) {
    memset(&used[static_cast<size_t>(Offset(i)) * size + kMargin], 1, size);
  }
  bool intact = true;
  for (size_t i = 0; i < bytes_.size(); ++i) intact = intact && (used[i] || bytes_[i] == kCanary);
  Expect(intact, "wrote outside of the elements");
}

inline std::vector<int64_t> Unravel(int64_t linear, const Shape& shape) {
  std::vector<int64_t> index(static_cast<size_t>(shape.rank));
  for (int d = shape.rank - 1; d >= 0; --d) {
    index[static_cast<size_t>(d)] = linear % shape.dims[d];
    linear /= shape.dims[d];
  }
  return index;
}

inline int64_t Ravel(const std::vector<int64_t>& index, const Shape& shape) {
  int64_t linear = 0;
  for (int d = 0; d < shape.rank; ++d) {
    linear = linear * shape.dims[d] + index[static_cast<size_t>(d)];
  }
  return linear;
}

inline void Run(const Kernel& kernel, const void* args, const std::vector<void*>& io, int64_t items,
                size_t scratch_bytes) {
  const int64_t cuts[] = {0, items / 3, items / 2, items};
  for (const int part : {2, 0, 1}) {
    void* scratch = nullptr;
    if (scratch_bytes != 0) {
      scratch = std::aligned_alloc(64, (scratch_bytes + 63) / 64 * 64);
      memset(scratch, 0xFF, scratch_bytes);  // NaN
    }
    kernel.run(args, io.data(), cuts[part], cuts[part + 1], scratch);
    std::free(scratch);
  }
}

inline bool Near(double got, double want, double relative, double absolute) {
  if (std::isnan(want)) return std::isnan(got);
  if (std::isinf(want) || std::isinf(got)) return got == want;
  return std::fabs(got - want) <= relative * std::fabs(want) + absolute;
}

inline void ExpectNear(const Tensor& got, const std::vector<double>& want, double relative,
                       double absolute) {
  ++checks;
  for (int64_t i = 0; i < got.elements(); ++i) {
    const double w = want[static_cast<size_t>(i)];
    if (Near(got.F(i), w, relative, absolute)) continue;
    char text[128];
    std::snprintf(text, sizeof(text), "element %lld of %lld: got %.9g, want %.9g",
                  static_cast<long long>(i), static_cast<long long>(got.elements()),
                  static_cast<double>(got.F(i)), w);
    Fail(text);
    break;
  }
  got.ExpectCanaries();
}

inline int Finish(const char* name) {
  std::printf("%s: %d checks on", name, checks);
  const char* const names[] = {"scalar", "avx2", "avx512", "avx512vnni", "amx", "neon", "neondot"};
  for (const Isa isa : Isas()) std::printf(" %s", names[static_cast<int>(isa)]);
  std::printf(", %d failures\n", failures);
  return failures == 0 ? 0 : 1;
}

}  // namespace test
}  // namespace sparsert
