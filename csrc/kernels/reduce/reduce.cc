// Reduce: arguments and selection.
#include "kernels/reduce/reduce.h"

#include "kernels/select.h"

namespace sparsert {

#define SRT_KERNEL SRT_DECLARE_KERNEL
#include "kernels/reduce/kernels.inc"

static const Kernel kKernels[] = {
#define SRT_KERNEL SRT_KERNEL_ROW
#include "kernels/reduce/kernels.inc"
};

ReduceArgs MakeReduceArgs(ReduceFn fn, const TensorDesc& x, const bool* reduced,
                          const TensorDesc& y) {
  ReduceArgs args;
  args.fn = fn;
  Shape kept_shape;
  Shape reduced_shape;
  int64_t kept_x[kMaxRank];
  int64_t kept_y[kMaxRank];
  int64_t reduced_x[kMaxRank];
  const bool keeps_dims = y.shape.rank == x.shape.rank;
  for (int d = 0; d < x.shape.rank; ++d) {
    if (reduced[d]) {
      reduced_x[reduced_shape.rank] = x.strides[d];
      reduced_shape.dims[reduced_shape.rank++] = x.shape.dims[d];
    } else {
      kept_x[kept_shape.rank] = x.strides[d];
      kept_y[kept_shape.rank] = y.strides[keeps_dims ? d : kept_shape.rank];
      kept_shape.dims[kept_shape.rank++] = x.shape.dims[d];
    }
  }
  args.count = reduced_shape.elements();
  args.reduced = MakeLoop<1>(reduced_shape, {reduced_x}, false);
  args.along_rows = args.reduced.row_strides[0] == 1;
  args.kept = MakeLoop<2>(kept_shape, {kept_y, kept_x}, !args.along_rows);
  const int64_t share = kRowChunk / (args.count < 1 ? 1 : args.count);
  SetChunk(&args.kept, args.along_rows || share > 64 ? share : 64);
  return args;
}

int64_t ReduceItems(const ReduceArgs& args) { return LoopItems(args.kept); }

bool SelectReduce(const ReduceArgs&, Isa isa, Kernel* kernel) {
  return SelectKernel(kKernels, isa, kernel);
}

}  // namespace sparsert
