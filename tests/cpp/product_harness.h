// What the tests of spmm, spmv and dwconv share: guarded memory, random matrices, references.
//
// Inputs, weights and biases are multiples of 1/4 of small size: every sum is exact in f32 in any
// order, so that results before the activation must match to the bit.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include "activation_reference.h"
#include "base/bump.h"
#include "base/platform.h"
#include "formats/decode.h"
#include "graph/infer_shapes.h"
#include "kernel_harness.h"

namespace sparsert {
namespace test {

// Floats that end (or begin) at a page which must not be touched: reads and writes past them trap.
class Guarded {
 public:
  Guarded(int64_t size, bool at_end, float fill) : size_(size) {
    const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    const size_t bytes = static_cast<size_t>(size) * sizeof(float);
    const size_t body = (bytes + page - 1) / page * page + page;
    bytes_ = body + 2 * page;
    base_ =
        static_cast<char*>(mmap(nullptr, bytes_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (base_ == MAP_FAILED || mprotect(base_ + page, body, PROT_READ | PROT_WRITE) != 0) {
      std::abort();
    }
    data_ = reinterpret_cast<float*>(at_end ? base_ + page + body - bytes : base_ + page);
    for (int64_t i = 0; i < size; ++i) data_[i] = fill;
  }
  Guarded(const Guarded&) = delete;
  Guarded& operator=(const Guarded&) = delete;
  ~Guarded() { munmap(base_, bytes_); }

  float* data() { return data_; }
  int64_t size() const { return size_; }
  float& operator[](int64_t i) { return data_[i]; }

 private:
  int64_t size_;
  size_t bytes_ = 0;
  char* base_ = nullptr;
  float* data_ = nullptr;
};

// A multiple of 1/4 in [-limit, limit].
inline float Quarter(Random* random, int limit) {
  return static_cast<float>(random->Int(-4 * limit, 4 * limit)) * 0.25f;
}

// The same without 0.
inline float NonZeroQuarter(Random* random, int limit) {
  const float value = Quarter(random, limit);
  return value == 0.0f ? 0.5f : value;
}

// How the non-zeros of a random matrix lie.
enum class Sparsity { kRandom, kRowPanels, kEmptyRows, kEmptyColumns, kOne, kNone };

inline std::vector<float> RandomMatrix(int64_t rows, int64_t cols, double density, Sparsity sort,
                                       Random* random) {
  std::vector<float> w(static_cast<size_t>(rows * cols), 0.0f);
  if (sort == Sparsity::kNone) return w;
  if (sort == Sparsity::kOne) {
    w[static_cast<size_t>(random->Int(0, rows * cols - 1))] = 1.25f;
    return w;
  }
  std::vector<bool> empty(static_cast<size_t>(rows + cols));
  for (size_t i = 0; i < empty.size(); ++i) empty[i] = random->Uniform(0, 1) < 0.4;
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < cols; ++c) {
      const size_t at = static_cast<size_t>(r * cols + c);
      if (sort == Sparsity::kEmptyRows && empty[static_cast<size_t>(r)]) continue;
      if (sort == Sparsity::kEmptyColumns && empty[static_cast<size_t>(rows + c)]) continue;
      if (sort == Sparsity::kRowPanels && r % 4 != 0) {
        if (w[at - static_cast<size_t>(cols)] != 0.0f) w[at] = NonZeroQuarter(random, 2);
        continue;
      }
      if (random->Uniform(0, 1) < density) w[at] = NonZeroQuarter(random, 2);
    }
  }
  return w;
}

inline void Must(const Status& status) {
  if (!status.ok()) Fail(std::string("status: ") + status.text());
}

// `dense`: [rows][cols].
inline void FillCsr(const std::vector<float>& dense, int64_t rows, int64_t cols, Csr* csr) {
  csr->rows = rows;
  csr->cols = cols;
  Must(csr->row_ptr.push_back(0));
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < cols; ++c) {
      const float value = dense[static_cast<size_t>(r * cols + c)];
      if (value == 0.0f) continue;
      Must(csr->col_idx.push_back(static_cast<uint32_t>(c)));
      Must(csr->values.push_back(value));
    }
    Must(csr->row_ptr.push_back(static_cast<uint32_t>(csr->values.size())));
  }
}

// Where output element `at` of a plane reads for a tap: offset in the input plane, or -1.
inline int64_t TapOffset(const Window& w, bool transposed, int64_t at, int64_t tap) {
  const int64_t out[2] = {at / w.out[1], at % w.out[1]};
  const int64_t k[2] = {tap / w.kernel[1], tap % w.kernel[1]};
  int64_t in[2] = {0, 0};
  for (int d = 0; d < 2; ++d) {
    if (transposed) {
      // The element whose contribution lands here, found by trying all.
      in[d] = -1;
      for (int64_t i = 0; i < w.in[d]; ++i) {
        if (i * w.stride[d] - w.pad_begin[d] + k[d] * w.dilation[d] == out[d]) in[d] = i;
      }
    } else {
      in[d] = out[d] * w.stride[d] - w.pad_begin[d] + k[d] * w.dilation[d];
    }
    if (in[d] < 0 || in[d] >= w.in[d]) return -1;
  }
  return in[0] * w.in[1] + in[1];
}

// A window over an input of about `width` columns with an output that is not empty.
inline Window RandomWindow(Random* random, bool transposed, int64_t width) {
  for (;;) {
    Window w;
    w.spatial_rank = 2;
    bool empty = false;
    for (int d = 0; d < 2; ++d) {
      w.in[d] = d == 0 ? random->Int(1, 4) : width;
      w.kernel[d] = random->Int(1, 4);
      w.stride[d] = random->Int(1, 3);
      w.dilation[d] = random->Int(1, 2);
      w.pad_begin[d] = random->Int(0, 3);
      const int64_t reach = w.dilation[d] * (w.kernel[d] - 1) + 1;
      const int64_t pads = w.pad_begin[d] + random->Int(0, 3);
      w.out[d] = transposed ? (w.in[d] - 1) * w.stride[d] + reach - pads + random->Int(0, 1)
                            : (w.in[d] + pads - reach) / w.stride[d] + 1;
      empty = empty || w.out[d] < 1 || (!transposed && w.in[d] + pads < reach);
    }
    if (!empty) return w;
  }
}

// Every function that may be fused, in turn.
inline Activation SomeActivation(int number) {
  Activation act;
  act.fn = static_cast<UnaryFn>(number % static_cast<int>(kUnaryFns));
  act.alpha = act.fn == UnaryFn::kClip ? -0.75f : 0.625f;
  act.beta = act.fn == UnaryFn::kHardSigmoid ? 0.25f : 1.5f;
  return act;
}

// Compares one element after its activation; exact functions must match to the bit.
inline bool Matches(const Activation& act, float got, double sum) {
  const double want = Activate(act, sum);
  const float rounded = static_cast<float>(want);
  switch (act.fn) {
    case UnaryFn::kNone:
    case UnaryFn::kRelu:
    case UnaryFn::kClip:
    case UnaryFn::kAbs:
    case UnaryFn::kNeg:
    case UnaryFn::kFloor:
    case UnaryFn::kCeil:
    case UnaryFn::kRound:
    case UnaryFn::kSign:
    case UnaryFn::kThresholdedRelu:
      return got == rounded;
    default:
      return Near(got, std::isinf(rounded) ? rounded : want, 4e-6, 4e-6);
  }
}

}  // namespace test
}  // namespace sparsert
