// Copy: moves elements of any type between strided tensors. Slice, Concat, Split, Transpose,
// Expand, Reshape and changes of layout are all this kernel with other arguments.
//
//   y[sum_d i_d * y_stride_d] = x[sum_d i_d * x_stride_d] for all i
#pragma once

#include "kernels/kernel.h"
#include "kernels/loop.h"

namespace sparsert {

// io: x, y; they do not overlap.
struct CopyArgs {
  int element_bytes;  // 1, 2, 4 or 8
  Loop<2> loop;       // y, x
  // A dimension along which x is contiguous while y is contiguous along rows: copied in square
  // tiles. 0 elements: there is none.
  int64_t tile_count;
  int64_t tile_y_stride;
  int64_t elements;
};

// Strides are [shape.rank] elements, of any sign.
CopyArgs MakeCopyArgs(DType dtype, const Shape& shape, const int64_t* x_strides,
                      const int64_t* y_strides);

// Work items: chunks of rows.
int64_t CopyItems(const CopyArgs& args);

bool SelectCopy(const CopyArgs& args, Isa isa, Kernel* kernel);

}  // namespace sparsert
