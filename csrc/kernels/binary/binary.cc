// Binary: arguments and selection.
#include "kernels/binary/binary.h"

#include "kernels/select.h"

namespace sparsert {

#define SRT_KERNEL SRT_DECLARE_KERNEL
#include "kernels/binary/kernels.inc"

static const Kernel kKernels[] = {
#define SRT_KERNEL SRT_KERNEL_ROW
#include "kernels/binary/kernels.inc"
};

BinaryArgs MakeBinaryArgs(BinaryFn fn, const TensorDesc& a, const TensorDesc& b,
                          const TensorDesc& y, const Activation& act) {
  BinaryArgs args;
  args.fn = fn;
  args.act = act;
  args.loop = MakeBroadcastLoop(a, b, y, true);
  return args;
}

int64_t BinaryItems(const BinaryArgs& args) { return LoopItems(args.loop); }

bool SelectBinary(const BinaryArgs&, Isa isa, Kernel* kernel) {
  return SelectKernel(kKernels, isa, kernel);
}

}  // namespace sparsert
