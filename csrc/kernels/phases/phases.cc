// The table of phases kernels and the choice among them.
#include "kernels/phases/phases.h"

#include "kernels/select.h"

namespace sparsert {

#define SRT_KERNEL SRT_DECLARE_KERNEL
#include "kernels/phases/kernels.inc"

static const Kernel kKernels[] = {
#define SRT_KERNEL SRT_KERNEL_ROW
#include "kernels/phases/kernels.inc"
};

bool SelectPhases(Isa isa, Kernel* kernel) { return SelectKernel(kKernels, isa, kernel); }

}  // namespace sparsert
