// Resize: nearest neighbour along any dimensions, linear along the last two, and all others along
// one dimension after the other.
//
//   nearest: y[i...] = x[index_0[i_0], index_1[i_1], ...]
//   linear:  y[.., h, w] = sum of the four neighbours of x at (h', w'), weighted
//   by axis: y[.., i, ..] = base[i] + sum_t weight[t, i] * x[.., index[t, i], ..]
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
  // By axis alone:
  bool antialias = false;        // a smaller y averages over all that it stands for
  bool exclude_outside = false;  // what is outside of x has no weight, instead of being its edge
  float cubic_a = -0.75f;
  float begin[kMaxRank] = {};  // of a crop, as a part of x
  float end[kMaxRank] = {};
  float extrapolation = 0.0f;  // what a crop holds outside of x
};

// What the index of a row's elements is like; all but kAny are of elements side by side.
enum class ResizeColumns {
  kAny,
  kSame,      // i
  kClimbing,  // never less than the one before, and at most one more
  kTwice,     // i / 2
};

// io: x, y.
struct ResizeArgs {
  ResizeMode mode;
  int element_bytes;  // 1, 2, 4 or 8; linear: 4 (f32)
  // nearest: y's dimensions, two at least, and, for each index along them, the index into x.
  int rank;
  int64_t dims[kMaxRank];
  int64_t x_strides[kMaxRank];
  int64_t y_strides[kMaxRank];
  const int32_t* index[kMaxRank];  // [dims[d]], and 16 entries of room after the last
  // linear: planes of height x width. Neighbours of y's index i: low[i] and high[i], weights
  // 1 - weight[i] and weight[i]. The arrays of the width have 16 entries of room after the last.
  Loop<2> planes;  // y, x: over the dimensions before the last two
  // Both: of the last two dimensions. linear: kClimbing where a vector of y, however long, is made
  // of no more than a vector of x, else kAny.
  ResizeColumns columns;
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

// Work items: planes cut into bands of rows.
int64_t ResizeItems(const ResizeArgs& args);
size_t ResizeScratch(const ResizeArgs& args);

// Whether it runs by axis.
bool ResizesByAxis(const ResizeSpec& spec, const TensorDesc& x, const TensorDesc& y);

// One dimension. io: x, plain f32 [outer, in, inner]; y, plain f32 [outer, out, inner].
struct ResizeAxisArgs {
  int64_t outer;
  int64_t in;
  int64_t out;
  int64_t inner;
  int64_t taps;
  int64_t stride;        // elements between the taps of the tables, out and 16 of room
  const int32_t* index;  // [taps, stride]
  const float* weight;   // [taps, stride]
  const float* base;     // [stride]
};

// Dimension d of x and y. Fills `tables` as MakeResizeArgs does.
Status MakeResizeAxisArgs(const ResizeSpec& spec, int64_t outer, int64_t in, int64_t out,
                          int64_t inner, int d, Array<int32_t>* tables, ResizeAxisArgs* args);
// Work items: rows of `inner` elements of y, or its rows of `out` where inner is 1.
int64_t ResizeAxisItems(const ResizeAxisArgs& args);
bool SelectResizeAxis(const ResizeAxisArgs& args, Isa isa, Kernel* kernel);

bool SelectResize(const ResizeArgs& args, Isa isa, Kernel* kernel);

}  // namespace sparsert
