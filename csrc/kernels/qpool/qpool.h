// Pools of packed bytes (see quantize.h): the largest byte of a window, or the mean
//
//   byte = clamp(round(float(sum of (byte - x_zero)) / float(count) * scale) + zero, low, high)
//
// of the window's elements; with count_padding, count includes those in the padding, which add 0.
#pragma once

#include "kernels/kernel.h"
#include "kernels/spmm/taps.h"

namespace sparsert {

// io: x, y. A work item is one packed plane of one image. Strides in elements.
struct QpoolArgs {
  int64_t batch = 1;
  int64_t planes = 1;
  int64_t columns = 1;  // of the output
  int64_t x_image = 0, x_plane = 0;
  int64_t y_image = 0, y_plane = 0;
  // Maximum, unless by rows.
  TapTable taps;  // tiles of one vector
  bool by_rows = false;
  // The window over rows and columns; `ends`: of the padded input.
  int64_t kernel[2] = {1, 1}, stride[2] = {1, 1}, dilation[2] = {1, 1}, pad_begin[2] = {0, 0};
  int64_t in[2] = {1, 1}, out[2] = {1, 1}, ends[2] = {1, 1};
  bool count_padding = false;
  float scale = 1.0f;
  int32_t x_zero = 0, zero = 0, low = 0, high = 255;
};

inline int64_t QpoolItems(const QpoolArgs& args) { return args.batch * args.planes; }

// Whether a maximum can be found by rows: square windows of 2 or 3, strides of 1 or 2.
inline bool QmaxPoolHasRows(const QpoolArgs& a) {
  for (int d = 0; d < 2; ++d) {
    if (a.kernel[d] != a.kernel[0] || a.stride[d] != a.stride[0] || a.dilation[d] != 1) {
      return false;
    }
  }
  return (a.kernel[0] == 2 || a.kernel[0] == 3) && a.stride[0] <= 2;
}

// `lanes`: of the vectors that the taps are for.
bool SelectQmaxPool(Isa isa, Kernel* kernel, int* lanes);
Kernel QaveragePool();

}  // namespace sparsert
