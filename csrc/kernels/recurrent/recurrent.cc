// Recurrent: selection.
#include "kernels/recurrent/recurrent.h"

#include "kernels/select.h"

namespace sparsert {

#define SRT_KERNEL SRT_DECLARE_KERNEL
#include "kernels/recurrent/kernels.inc"

static const Kernel kKernels[] = {
#define SRT_KERNEL SRT_KERNEL_ROW
#include "kernels/recurrent/kernels.inc"
};

size_t RecurrentScratch(const RecurrentArgs& args) {
  // Of each sequence h, a second state and the products of all gates.
  const int64_t vectors = 2 + GatesOf(args.cell);
  return static_cast<size_t>(args.batch * vectors * args.hidden) * sizeof(float);
}

bool SelectRecurrent(const RecurrentArgs&, Isa isa, Kernel* kernel) {
  return SelectKernel(kKernels, isa, kernel);
}

}  // namespace sparsert
