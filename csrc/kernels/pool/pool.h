// Pool: the maximum or the average over windows of a plane, and GlobalPool: over the whole plane.
//
//   y[p, oh, ow] = max or mean of x[p, oh * stride_h - pad_h + kh * dilation_h, ...] over kh, kw,
// p a plane (n, c). Elements in the padding never win a maximum. An average is divided by the
// number of elements inside x or, with count_include_pad, inside the padded x, whose end is
// pad_end: with ceil_mode a window may reach past it.
#pragma once

#include <cstddef>

#include "kernels/kernel.h"
#include "kernels/loop.h"

namespace sparsert {

enum class PoolFn : uint8_t { kMax = 0, kAverage = 1 };

// Index 0 is the height, index 1 the width; 1-D pools have a height of ones. The shape of y may
// come from floor or ceil: only `out` says.
struct PoolWindow {
  int64_t kernel[2];
  int64_t stride[2];
  int64_t dilation[2];
  int64_t pad_begin[2];
  int64_t pad_end[2];
  int64_t in[2];
  int64_t out[2];
};

// The planes of a pair of tensors; plane p is channel p % channels of image p / channels.
struct PlanePairs {
  int64_t planes;
  int64_t channels;
  int64_t x_image;  // elements between images
  int64_t x_plane;  // elements between planes
  int64_t y_image;
  int64_t y_plane;

  // No symbols, as SRT_INLINE has it: files of all instruction sets call them.
  __attribute__((always_inline)) int64_t XOffset(int64_t p) const {
    return p / channels * x_image + p % channels * x_plane;
  }
  __attribute__((always_inline)) int64_t YOffset(int64_t p) const {
    return p / channels * y_image + p % channels * y_plane;
  }
};

// io: x, y.
struct PoolArgs {
  PoolFn fn;
  bool count_include_pad;
  PoolWindow window;
  PlanePairs pairs;
};

// x and y: f32, rank 3 or 4.
PoolArgs MakePoolArgs(PoolFn fn, const TensorDesc& x, const TensorDesc& y, const PoolWindow& window,
                      bool count_include_pad);
// Work items: planes.
int64_t PoolItems(const PoolArgs& args);
size_t PoolScratch(const PoolArgs& args);
bool SelectPool(const PoolArgs& args, Isa isa, Kernel* kernel);

// The maximum and where it stands. io: x; y, plain, or nullptr; indices, plain int64 of y's shape:
// the row-major number of the first largest element in all of x, or with column_major with the
// columns of its plane in order.
struct PoolIndicesArgs {
  PoolWindow window;
  PlanePairs pairs;  // of x; y is plain
  bool column_major;
};

// x and y: f32, rank 3 or 4.
PoolIndicesArgs MakePoolIndicesArgs(const TensorDesc& x, const TensorDesc& y,
                                    const PoolWindow& window, bool column_major);
// Work items: planes.
int64_t PoolIndicesItems(const PoolIndicesArgs& args);
// One kernel for every instruction set.
bool SelectPoolIndices(const PoolIndicesArgs& args, Isa isa, Kernel* kernel);

// io: x, y. y[n, c, 1, ...] = max or mean of the plane x[n, c, ...].
struct GlobalPoolArgs {
  PoolFn fn;
  int64_t plane;  // elements
  PlanePairs pairs;
};

// x and y: f32, rank >= 3; y has one element a plane.
GlobalPoolArgs MakeGlobalPoolArgs(PoolFn fn, const TensorDesc& x, const TensorDesc& y);
// Work items: planes.
int64_t GlobalPoolItems(const GlobalPoolArgs& args);
bool SelectGlobalPool(const GlobalPoolArgs& args, Isa isa, Kernel* kernel);

}  // namespace sparsert
