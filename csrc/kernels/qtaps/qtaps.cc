// The table of qtaps kernels and the choice among them.
#include "kernels/qtaps/qtaps.h"

#include "kernels/select.h"

namespace sparsert {

#define SRT_KERNEL SRT_DECLARE_KERNEL
#include "kernels/qtaps/kernels.inc"

static const Kernel kKernels[] = {
#define SRT_KERNEL SRT_KERNEL_ROW
#include "kernels/qtaps/kernels.inc"
};

bool SelectQtaps(Isa isa, Kernel* kernel) { return SelectKernel(kKernels, isa, kernel); }

}  // namespace sparsert
