// dwconv: depthwise convolution, dense weights.
//
//   Y[n][o][column] = act(bias[o] + sum over taps of W[o][tap] * X[n][o / multiplier][tap of
//   column]
//                         + R[n][o][column])
//
// io: X, [R or nullptr], Y. Y must not overlap X or R. A work item is one (image, output channel).
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
  const float* weights = nullptr;  // [channels][taps]
  const float* bias = nullptr;     // [channels] or nullptr
  Activation act;
};

constexpr int kDwconvMaxVecs = 4;  // widest tile

inline int64_t DwconvItems(const DwconvArgs& a) {
  return static_cast<int64_t>(a.batch) * a.channels;
}

// `lanes` gets the floats per vector.
bool SelectDwconv(Isa isa, Kernel* kernel, int* lanes);

}  // namespace sparsert
