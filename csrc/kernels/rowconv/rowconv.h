// rowconv: convolution of a few small input planes, dense weights, stride 1, no dilation; with
// `pool` followed by a 2 x 2 max-pool of stride 2.
//
//   C[n][o][h][w] = act(bias[o] + sum over i, kh, kw of W[o][i][kh][kw] * X[n][i][h + kh - pad_h]
//                                                                        [w + kw - pad_w])
//   Y = C, or Y[n][o][h][w] = max over i, j < 2 of C[n][o][2 h + i][2 w + j]
//
// With so few inputs, copying a tile of them for each tap takes as long as the multiply-adds do.
// Here the planes are copied once, with their padding, and every tap reads them where they lie; two
// output rows at a time stay in registers, so that they can be pooled there.
//
// io: X, Y, which must not overlap. A work item is one image's block of kRowconvChannels output
// channels.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/arch.h"
#include "base/functions.h"
#include "kernels/kernel.h"

namespace sparsert {

constexpr int kRowconvChannels = 4;

struct RowconvArgs {
  int32_t batch = 1;
  int32_t channels = 1;  // of Y
  int32_t in_channels = 1;
  int64_t kernel_h = 1, kernel_w = 1;
  int64_t pad_h = 0, pad_w = 0;
  int64_t in_h = 1, in_w = 1;
  int64_t out_h = 1, out_w = 1;  // of C
  bool pool = false;
  // Strides in floats.
  int64_t x_image = 0, x_plane = 0;
  int64_t y_image = 0, y_plane = 0;
  const float* weights = nullptr;  // [channels][in_channels][kernel_h][kernel_w]
  const float* bias = nullptr;     // [channels] or nullptr
  Activation act;
};

// A plane's copy: a row's width covers whole pairs of vectors of output columns, and a last pair of
// output rows is whole.
SRT_INLINE int64_t RowconvPitch(const RowconvArgs& a) {
  return ((a.out_w + 31) / 32 * 32 + a.kernel_w - 1 + 15) / 16 * 16;
}
SRT_INLINE int64_t RowconvRows(const RowconvArgs& a) {
  return (a.out_h + 1) / 2 * 2 + a.kernel_h - 1;
}

inline size_t RowconvScratch(const RowconvArgs& a) {
  return static_cast<size_t>(a.in_channels * RowconvRows(a) * RowconvPitch(a)) * sizeof(float);
}

SRT_INLINE int64_t RowconvBlocks(const RowconvArgs& a) {
  return (a.channels + kRowconvChannels - 1) / kRowconvChannels;
}
inline int64_t RowconvItems(const RowconvArgs& a) { return a.batch * RowconvBlocks(a); }

bool SelectRowconv(Isa isa, Kernel* kernel);

}  // namespace sparsert
