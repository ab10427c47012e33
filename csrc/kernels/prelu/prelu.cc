// PRelu: arguments and selection.
#include "kernels/prelu/prelu.h"

#include "kernels/select.h"

namespace sparsert {

#define SRT_KERNEL SRT_DECLARE_KERNEL
#include "kernels/prelu/kernels.inc"

static const Kernel kKernels[] = {
#define SRT_KERNEL SRT_KERNEL_ROW
#include "kernels/prelu/kernels.inc"
};

PReluArgs MakePReluArgs(const TensorDesc& x, const TensorDesc& slope, const TensorDesc& y) {
  PReluArgs args;
  int64_t slope_strides[kMaxRank];
  BroadcastStrides(slope, y.shape, slope_strides);
  args.loop = MakeLoop<3>(y.shape, {y.strides, x.strides, slope_strides}, true);
  return args;
}

int64_t PReluItems(const PReluArgs& args) { return LoopItems(args.loop); }

bool SelectPRelu(const PReluArgs&, Isa isa, Kernel* kernel) {
  return SelectKernel(kKernels, isa, kernel);
}

}  // namespace sparsert
