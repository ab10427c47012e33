// dwconv: depthwise convolution, dense weights.
//
//   Y[n][o][column] = act(bias[o] + sum over taps of W[o][tap] * X[n][o / multiplier][tap of
//   column]
//                         + R[n][o][column])
//
// io: X, [R or nullptr], Y. Y must not overlap X; it may be R itself (same strides), not overlap it
// otherwise. A work item is one (image, band of output rows, output channel).
#pragma once

#include <cstdint>

#include "base/functions.h"
#include "kernels/kernel.h"
#include "kernels/spmm/taps.h"

namespace sparsert {

struct DwconvArgs {
  int32_t batch = 1;
  int32_t channels = 1;    // of Y
  int32_t multiplier = 1;  // output channels per input channel
  int32_t tiles = 1;
  int32_t vecs = 0;  // vectors of a whole plane; tile t covers [t * vecs / tiles, ...)
  int64_t columns = 0;
  TapTable taps;
  // Strides in floats.
  int64_t x_image = 0, x_plane = 0;
  int64_t r_image = 0, r_plane = 0;
  int64_t y_image = 0, y_plane = 0;
  // Row by row: strides of 1, or of 2 without dilation; else through the tap table.
  bool by_rows = false;
  int64_t kernel_h = 1, kernel_w = 1;
  int64_t stride_h = 1, stride_w = 1;
  int64_t dilation_h = 1, dilation_w = 1;
  // Row by row, a plane may be cut into bands: threads then stay in the columns of the planes which
  // they also own in the convolutions around.
  int32_t bands = 1;
  int64_t pad_h = 0, pad_w = 0;
  int64_t in_h = 0, in_w = 0;
  int64_t out_h = 0, out_w = 0;
  const float* weights = nullptr;  // [channels][taps]
  const float* bias = nullptr;     // [channels] or nullptr
  Activation act;
};

constexpr int kDwconvMaxVecs = 4;  // widest tile

inline int64_t DwconvItems(const DwconvArgs& a) {
  return static_cast<int64_t>(a.batch) * a.bands * a.channels;
}

// `lanes` gets the floats per vector.
bool SelectDwconv(Isa isa, Kernel* kernel, int* lanes);

}  // namespace sparsert
