// Unary: arguments and selection.
#include "kernels/unary/unary.h"

#include "kernels/select.h"

namespace sparsert {

#define SRT_KERNEL SRT_DECLARE_KERNEL
#include "kernels/unary/kernels.inc"

static const Kernel kKernels[] = {
#define SRT_KERNEL SRT_KERNEL_ROW
#include "kernels/unary/kernels.inc"
};

UnaryArgs MakeUnaryArgs(const TensorDesc& x, const TensorDesc& y, const Activation& fn) {
  UnaryArgs args;
  args.fn = fn;
  args.loop = MakeLoop<2>(y.shape, {y.strides, x.strides}, true);
  return args;
}

int64_t UnaryItems(const UnaryArgs& args) { return LoopItems(args.loop); }

bool SelectUnary(const UnaryArgs&, Isa isa, Kernel* kernel) {
  return SelectKernel(kKernels, isa, kernel);
}

}  // namespace sparsert
