// stem: a network's first convolution, of a few large planes, dense weights, no dilation; with
// `pool` followed by a 3 x 3 max-pool of stride 2 and a padding of 1.
//
//   C[n][o][h][w] = act(bias[o] + sum over i, kh, kw of W[o][i][kh][kw] *
//                       X[n][i][h * stride_h + kh - pad_h][w * stride_w + kw - pad_w])
//   Y = C, or Y[n][o][h][w] = max over i, j < 3 of C[n][o][2 h + i - 1][2 w + j - 1]
//
// The product is that of spmm's squares (kernels/spmm/squares.h): floats in three pieces of bf16,
// two panels of 16 output channels times 16 columns of two output rows at a time. What differs is
// how X gets to the tile registers. Take the rows of all planes in the order (row, channel): an
// output row needs successive ones, and the next output row those a fixed distance on. Two of them
// and a column of the kernel make a word row: for 16 output columns, the pairs of inputs that this
// column of the kernel multiplies. Word rows lie side by side in the order (pair of rows, column of
// the kernel), so that each 16 of them are a tile, and an input is cut into pieces once for all the
// output rows that it takes part in. For an output row that begins with the second one of a pair,
// the weights are packed again, moved by a row.
//
// Columns are cut into strips of 16, output rows into bands of whole pairs. Strip by strip of a
// band, the next one's word rows are cut beside the products of this one.
//
// io: X, Y, which must not overlap. A work item is one image's band; those that run in one call
// share what the pool needs of the rows before.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/arch.h"
#include "base/functions.h"
#include "kernels/kernel.h"

namespace sparsert {

constexpr int kStemLanes = 16;      // output columns of a strip, and output channels of a panel
constexpr int kStemMaxKernel = 16;  // columns of the kernel

struct StemArgs {
  int32_t batch = 1;
  int32_t channels = 1;  // of Y
  int32_t in_channels = 1;
  int64_t kernel_h = 1, kernel_w = 1;
  int64_t stride_h = 1, stride_w = 1;  // stride_w: 1 or 2
  int64_t pad_h = 0, pad_w = 0;
  int64_t in_h = 1, in_w = 1;
  int64_t out_h = 1, out_w = 1;  // of C
  bool pool = false;
  int64_t pooled_h = 0, pooled_w = 0;  // of Y; 2 * (pooled - 1) < out
  int32_t bands = 1;                   // at most StemPairs()
  // Strides in floats.
  int64_t x_image = 0, x_plane = 0;
  int64_t y_image = 0, y_plane = 0;
  const float* weights = nullptr;  // [channels][in_channels][kernel_h][kernel_w]
  const float* packed = nullptr;   // the same, by PackStem()
  const float* bias = nullptr;     // [channels] or nullptr
  Activation act;                  // with pool: none, Relu or Clip
};

// Pairs of output rows.
SRT_INLINE int64_t StemPairs(const StemArgs& a) { return a.pool ? a.pooled_h : (a.out_h + 1) / 2; }
SRT_INLINE int64_t StemStrips(const StemArgs& a) {
  const int64_t columns = a.pool ? 2 * a.pooled_w : a.out_w;
  return (columns + kStemLanes - 1) / kStemLanes;
}
SRT_INLINE int64_t StemPanels(const StemArgs& a) {
  return (a.channels + kStemLanes - 1) / kStemLanes;
}

// Whether output rows begin an odd number of rows apart: then all pairs of neighbours are cut,
// those that begin with the second, fourth, ... row after the others.
SRT_INLINE int64_t StemSets(const StemArgs& a) {
  return a.stride_h * a.in_channels % 2 == 0 ? 1 : 2;
}
// Steps of 16 word rows that an output row multiplies.
SRT_INLINE int64_t StemSteps(const StemArgs& a) {
  const int64_t row_pairs = (a.in_channels * a.kernel_h + 1) / 2;
  return (row_pairs * a.kernel_w + kStemLanes - 1) / kStemLanes;
}

// [panels][steps][16 channels][2 of a pair][16 word rows]
SRT_INLINE int64_t StemPackedFloats(const StemArgs& a) {
  return StemPanels(a) * StemSteps(a) * (2 * kStemLanes * kStemLanes);
}
void PackStem(const StemArgs& a, float* to);

// The scratch of a thread.
struct StemFloats {
  int64_t words;  // of a strip, twice
  int64_t w;      // pieces of all weights
  int64_t sums;   // of two panels and two output rows, twice
  int64_t row;    // pool: the last output row, [strips][panels][16][16]
  int64_t edge;   // pool: the last column of a strip, [panels][16][pairs of a band]
};
StemFloats StemFloatsOf(const StemArgs& a);
size_t StemScratch(const StemArgs& a);

inline int64_t StemItems(const StemArgs& a) { return static_cast<int64_t>(a.batch) * a.bands; }

// False if the instruction set has none.
bool SelectStem(Isa isa, Kernel* kernel);

}  // namespace sparsert
