// BatchNorm: arguments and selection.
#include "kernels/batch_norm/batch_norm.h"

#include "kernels/select.h"

namespace sparsert {

#define SRT_KERNEL SRT_DECLARE_KERNEL
#include "kernels/batch_norm/kernels.inc"

static const Kernel kKernels[] = {
#define SRT_KERNEL SRT_KERNEL_ROW
#include "kernels/batch_norm/kernels.inc"
};

BatchNormArgs MakeBatchNormArgs(const TensorDesc& x, const TensorDesc& y, const Activation& act) {
  BatchNormArgs args;
  args.act = act;
  const int64_t channel_strides[kMaxRank] = {0, 1};
  args.loop = MakeLoop<3>(y.shape, {y.strides, x.strides, channel_strides}, true);
  return args;
}

int64_t BatchNormItems(const BatchNormArgs& args) { return LoopItems(args.loop); }

bool SelectBatchNorm(const BatchNormArgs&, Isa isa, Kernel* kernel) {
  return SelectKernel(kKernels, isa, kernel);
}

}  // namespace sparsert
