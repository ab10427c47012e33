// Gather: y[o..., i..., r...] = x[o..., indices[i...], r...], the indices along one dimension of x.
#pragma once

#include "base/status.h"
#include "kernels/kernel.h"
#include "kernels/loop.h"

namespace sparsert {

// io: x, y; and the indices, plain, unless they are known at plan time.
struct GatherArgs {
  int element_bytes;       // 1, 2, 4 or 8
  const int64_t* indices;  // in [0, axis_size), the caller keeps them; nullptr: io[2]
  // Of io[2]. A kernel cannot fail: an index outside of [-axis_size, axis_size) gives NaN, or 0 for
  // types that have none.
  DType index_dtype;  // kI32 or kI64
  int64_t axis_size;
  uint8_t outside;      // every byte of such an element
  int64_t axis_stride;  // of x
  Loop<3> loop;         // y, x without the axis, position in indices
};

// Turns indices in [-size, size) into [0, size); kInvalidArgument names the first one outside.
// `out` may be `indices`.
Status NormalizeIndices(const int64_t* indices, int64_t n, int64_t size, int64_t* out);

// x and y of one type; axis in [0, rank of x); `indices_shape`: their shape, which stands in y's
// shape for the axis; `indices`: nullptr when they come with io.
GatherArgs MakeGatherArgs(const TensorDesc& x, int axis, const int64_t* indices, DType index_dtype,
                          const Shape& indices_shape, const TensorDesc& y);

// Work items: rows, or chunks of long rows.
int64_t GatherItems(const GatherArgs& args);

// One kernel for every instruction set.
bool SelectGather(const GatherArgs& args, Isa isa, Kernel* kernel);

}  // namespace sparsert
