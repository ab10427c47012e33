// Resize: nearest neighbour along any dimensions, linear along the last two.
//
//   nearest: y[i...] = x[index_0[i_0], index_1[i_1], ...]
//   linear:  y[.., h, w] = sum of the four neighbours of x at (h', w'), weighted
// Coordinates are computed in float, as ONNX Runtime does; those outside of x are clamped into it.
#pragma once

#include <cstddef>

#include "base/array.h"
#include "base/functions.h"
#include "kernels/kernel.h"
#include "kernels/loop.h"

namespace sparsert {

struct ResizeSpec {
  ResizeMode mode;
  CoordinateMode coordinates;
  NearestMode nearest;
  float scale[kMaxRank];  // [rank], out / in as the model gives it
};

// io: x, y.
struct ResizeArgs {
  ResizeMode mode;
  int element_bytes;  // 1, 2, 4 or 8; linear: 4 (f32)
  // nearest: y's dimensions and, for each index along them, the index into x.
  int rank;
  int64_t dims[kMaxRank];
  int64_t x_strides[kMaxRank];
  int64_t y_strides[kMaxRank];
  const int32_t* index[kMaxRank];  // [dims[d]]
  // linear: planes of height x width. Neighbours of y's index i: low[i] and high[i], weights
  // 1 - weight[i] and weight[i]. The arrays of the width have 16 entries of room after the last.
  Loop<2> planes;  // y, x: over the dimensions before the last two
  int64_t in[2];
  int64_t out[2];
  int64_t x_row;  // elements between rows
  int64_t y_row;
  const int32_t* low[2];
  const int32_t* high[2];
  const float* weight[2];
};

// Fills `tables`, which the arguments point into: keep it as it is for as long as them.
// kUnsupported for linear along a dimension before the last two.
Status MakeResizeArgs(const ResizeSpec& spec, const TensorDesc& x, const TensorDesc& y,
                      Array<int32_t>* tables, ResizeArgs* args);

// Work items: rows of y (nearest), or planes cut into bands of rows (linear).
int64_t ResizeItems(const ResizeArgs& args);
size_t ResizeScratch(const ResizeArgs& args);

// Linear has a kernel per instruction set, nearest one for all.
bool SelectResize(const ResizeArgs& args, Isa isa, Kernel* kernel);

}  // namespace sparsert
