// Softmax: arguments and selection.
#include "kernels/softmax/softmax.h"

#include "kernels/select.h"

namespace sparsert {

#define SRT_KERNEL SRT_DECLARE_KERNEL
#include "kernels/softmax/kernels.inc"

static const Kernel kKernels[] = {
#define SRT_KERNEL SRT_KERNEL_ROW
#include "kernels/softmax/kernels.inc"
};

SoftmaxArgs MakeSoftmaxArgs(bool log, const TensorDesc& x, int axis, const TensorDesc& y) {
  SoftmaxArgs args;
  args.log = log;
  args.count = x.shape.dims[axis];
  args.x_step = args.count == 1 ? 1 : x.strides[axis];
  args.y_step = args.count == 1 ? 1 : y.strides[axis];
  args.along_rows = args.x_step == 1 && args.y_step == 1;
  Shape rest = x.shape;
  rest.dims[axis] = 1;
  args.rest = MakeLoop<2>(rest, {y.strides, x.strides}, !args.along_rows);
  const int64_t share = kRowChunk / 4 / (args.count < 1 ? 1 : args.count);
  SetChunk(&args.rest, args.along_rows || share > 64 ? share : 64);
  return args;
}

int64_t SoftmaxItems(const SoftmaxArgs& args) { return args.count == 0 ? 0 : LoopItems(args.rest); }

bool SelectSoftmax(const SoftmaxArgs&, Isa isa, Kernel* kernel) {
  return SelectKernel(kKernels, isa, kernel);
}

}  // namespace sparsert
