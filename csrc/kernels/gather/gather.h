// Gather: y[o..., i..., r...] = x[o..., indices[i...], r...], the indices along one dimension of x.
#pragma once

#include "base/status.h"
#include "kernels/kernel.h"
#include "kernels/loop.h"

namespace sparsert {

// io: x, y, indices, IndexFault. Indices known at plan time are checked there. Others are read when
// the kernel runs; it reports those outside of the axis and picks nothing for them.
struct GatherArgs {
  int element_bytes;       // 1, 2, 4 or 8
  const int64_t* indices;  // in [0, size of the axis); the caller keeps them. nullptr: read io
  int index_bytes;         // 4 or 8, of io's indices
  int64_t axis_size;       // of x
  int64_t axis_stride;     // of x
  Loop<3> loop;            // y, x without the axis, indices
};

// Turns indices in [-size, size) into [0, size); kInvalidArgument names the first one outside.
// `out` may be `indices`.
Status NormalizeIndices(const int64_t* indices, int64_t n, int64_t size, int64_t* out);

// x and y of one type; axis in [0, rank of x), whose place in y's shape that of the indices takes.
// `known`: nullptr, or the indices in row-major order; else they are i32 or i64.
GatherArgs MakeGatherArgs(const TensorDesc& x, int axis, const int64_t* known,
                          const TensorDesc& indices, const TensorDesc& y);

// Work items: rows, or chunks of long rows.
int64_t GatherItems(const GatherArgs& args);

// One kernel for every instruction set.
bool SelectGather(const GatherArgs& args, Isa isa, Kernel* kernel);

}  // namespace sparsert
