// qdwconv: depthwise convolution of packed bytes (see quantize.h), dense weights of a byte.
//
//   sum = start[c] + sum over taps of W[c][tap] * X[c][tap of column], exactly, in 32 bits
//   Y[c][column] = clamp(round(sum * scale[c]) + zero, low, high), half to even
//
// For square kernels of 3 or 5, equal strides of 1 or 2, no dilation. A tap in the padding reads
// `fill`. `start` holds the bias less what X's zero point adds.
//
// io: X, Y, which must not overlap. A work item is one packed plane of one image.
#pragma once

#include "kernels/kernel.h"

namespace sparsert {

struct QdwconvArgs {
  int64_t batch = 1;
  int64_t planes = 1;  // packed
  int32_t kernel = 3;
  int32_t stride = 1;
  int64_t pad_h = 0, pad_w = 0;
  int64_t in_h = 1, in_w = 1;
  int64_t out_h = 1, out_w = 1;
  // Strides in elements.
  int64_t x_image = 0, x_plane = 0;
  int64_t y_image = 0, y_plane = 0;
  // [planes][kernel][tap groups][4 channels][4]: the taps of each row, filled up with zeros; those
  // of channels that do not exist are zeros, too.
  const int8_t* weights = nullptr;
  const int32_t* start = nullptr;  // [planes * 4]
  const float* scale = nullptr;    // [planes * 4]; 0 for channels that do not exist
  uint8_t fill = 0;
  int32_t zero = 0, low = 0, high = 255;
};

// Fours of taps that a row of them takes.
constexpr int QdwconvTapGroups(int kernel) { return (kernel + 3) / 4; }

inline int64_t QdwconvItems(const QdwconvArgs& a) { return a.batch * a.planes; }

// `byte_offset`: as QspmmKernel's.
bool SelectQdwconv(Isa isa, Kernel* kernel, int* byte_offset);

}  // namespace sparsert
