// Copy: moves elements of any type between strided tensors. Slice, Concat, Split, Transpose,
// Expand, Reshape and changes of layout are all this kernel with other arguments.
//
//   y[y_offset + sum_d i_d * y_stride_d] = x[x_offset + sum_d i_d * x_stride_d] for all i
#pragma once

#include "kernels/kernel.h"
#include "kernels/loop.h"

namespace sparsert {

// Elements in row-major order, in equal contiguous blocks (planes) at equal distances.
struct PlaneSequence {
  int64_t plane;   // elements
  int64_t stride;  // elements between the starts of planes
};

// io: x, y; they do not overlap.
struct CopyArgs {
  bool reshapes;      // copies in row-major order by the plane sequences instead of the loop
  int element_bytes;  // 1, 2, 4 or 8
  int64_t x_offset;   // elements
  int64_t y_offset;
  Loop<2> loop;  // y, x
  // A dimension along which x is contiguous while y is contiguous along rows: copied in square
  // tiles. 0 elements: there is none.
  int64_t tile_count;
  int64_t tile_y_stride;
  PlaneSequence x_planes;
  PlaneSequence y_planes;
  int64_t elements;
};

// The general case; strides are [shape.rank] elements, of any sign.
CopyArgs MakeCopyArgs(DType dtype, const Shape& shape, const int64_t* x_strides, int64_t x_offset,
                      const int64_t* y_strides, int64_t y_offset);

// y dimension d is x dimension perm[d].
CopyArgs MakeTransposeArgs(const TensorDesc& x, const int* perm, const TensorDesc& y);
// y index i along dimension d is x index start[d] + i * step[d]; step may be negative.
CopyArgs MakeSliceArgs(const TensorDesc& x, const int64_t* start, const int64_t* step,
                       const TensorDesc& y);
// All of x goes to indices first, first + 1, ... of y along the axis: one call per input.
CopyArgs MakeConcatArgs(const TensorDesc& x, int axis, int64_t first, const TensorDesc& y);
// y is indices first, first + 1, ... of x along the axis: one call per output.
CopyArgs MakeSplitArgs(const TensorDesc& x, int axis, int64_t first, const TensorDesc& y);
// numpy broadcasting of x to the shape of y.
CopyArgs MakeExpandArgs(const TensorDesc& x, const TensorDesc& y);
// The elements of x in row-major order become those of y: Reshape, Flatten, Squeeze, Unsqueeze,
// Identity, and any change between plain and padded-plane layout.
CopyArgs MakeReshapeArgs(const TensorDesc& x, const TensorDesc& y);

// Work items: rows, or chunks of elements.
int64_t CopyItems(const CopyArgs& args);

bool SelectCopy(const CopyArgs& args, Isa isa, Kernel* kernel);

}  // namespace sparsert
