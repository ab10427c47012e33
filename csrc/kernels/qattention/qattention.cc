// Qattention: selection, and the layout of its scratch.
#include "kernels/qattention/qattention.h"

#include "kernels/qattention/scratch.h"
#include "kernels/select.h"

namespace sparsert {

#define SRT_KERNEL SRT_DECLARE_KERNEL
#include "kernels/qattention/kernels.inc"

static const Kernel kKernels[] = {
#define SRT_KERNEL SRT_KERNEL_ROW
#include "kernels/qattention/kernels.inc"
};

size_t QattentionScratch(const QattentionArgs& args) {
  return static_cast<size_t>(QattentionBlock(args, nullptr).floats) * sizeof(float);
}

bool SelectQattention(Isa isa, Kernel* kernel) { return SelectKernel(kKernels, isa, kernel); }

}  // namespace sparsert
