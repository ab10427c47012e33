// Pool: arguments and selection.
#include "kernels/pool/pool.h"

#include "kernels/pool/rows.h"
#include "kernels/select.h"

namespace sparsert {

#define SRT_KERNEL SRT_DECLARE_KERNEL
#define SRT_GLOBAL_KERNEL SRT_DECLARE_KERNEL
#define SRT_INDICES_KERNEL SRT_DECLARE_KERNEL
#include "kernels/pool/kernels.inc"

#define SRT_NO_ROW(function, isa)

static const Kernel kKernels[] = {
#define SRT_KERNEL SRT_KERNEL_ROW
#define SRT_GLOBAL_KERNEL SRT_NO_ROW
#define SRT_INDICES_KERNEL SRT_NO_ROW
#include "kernels/pool/kernels.inc"
};

static const Kernel kGlobalKernels[] = {
#define SRT_KERNEL SRT_NO_ROW
#define SRT_GLOBAL_KERNEL SRT_KERNEL_ROW
#define SRT_INDICES_KERNEL SRT_NO_ROW
#include "kernels/pool/kernels.inc"
};

static const Kernel kIndicesKernels[] = {
#define SRT_KERNEL SRT_NO_ROW
#define SRT_GLOBAL_KERNEL SRT_NO_ROW
#define SRT_INDICES_KERNEL SRT_KERNEL_ROW
#include "kernels/pool/kernels.inc"
};

static PlanePairs PairsOf(const TensorDesc& x, const TensorDesc& y) {
  PlanePairs pairs;
  pairs.planes = x.shape.dims[0] * x.shape.dims[1];
  pairs.channels = x.shape.dims[1];
  pairs.x_image = x.strides[0];
  pairs.x_plane = x.strides[1];
  pairs.y_image = y.strides[0];
  pairs.y_plane = y.strides[1];
  return pairs;
}

PoolArgs MakePoolArgs(PoolFn fn, const TensorDesc& x, const TensorDesc& y, const PoolWindow& window,
                      bool count_include_pad) {
  PoolArgs args;
  args.fn = fn;
  args.count_include_pad = count_include_pad;
  args.window = window;
  args.pairs = PairsOf(x, y);
  return args;
}

int64_t PoolItems(const PoolArgs& args) { return args.pairs.planes; }

size_t PoolScratch(const PoolArgs& args) {
  return static_cast<size_t>(PoolRowsOf(args.window).floats) * sizeof(float);
}

bool SelectPool(const PoolArgs&, Isa isa, Kernel* kernel) {
  return SelectKernel(kKernels, isa, kernel);
}

GlobalPoolArgs MakeGlobalPoolArgs(PoolFn fn, const TensorDesc& x, const TensorDesc& y) {
  GlobalPoolArgs args;
  args.fn = fn;
  args.plane = x.plane();
  args.pairs = PairsOf(x, y);
  return args;
}

int64_t GlobalPoolItems(const GlobalPoolArgs& args) { return args.pairs.planes; }

bool SelectGlobalPool(const GlobalPoolArgs&, Isa isa, Kernel* kernel) {
  return SelectKernel(kGlobalKernels, isa, kernel);
}

PoolIndicesArgs MakePoolIndicesArgs(const TensorDesc& x, const TensorDesc& y,
                                    const PoolWindow& window, bool column_major) {
  PoolIndicesArgs args;
  args.window = window;
  args.pairs = PairsOf(x, y);
  args.column_major = column_major;
  return args;
}

int64_t PoolIndicesItems(const PoolIndicesArgs& args) { return args.pairs.planes; }

bool SelectPoolIndices(const PoolIndicesArgs&, Isa isa, Kernel* kernel) {
  return SelectKernel(kIndicesKernels, isa, kernel);
}

}  // namespace sparsert
