// The table of winograd kernels and the choice among them.
#include "kernels/winograd/winograd.h"

#include "kernels/select.h"

namespace sparsert {

#define SRT_WINOGRAD(rows, width, isa, IsaId, lanes)                                           \
  namespace isa {                                                                              \
  void Winograd(const void* args, void* const* io, int64_t begin, int64_t end, void* scratch); \
  }
#include "kernels/winograd/kernels.inc"
#undef SRT_WINOGRAD

bool SelectWinograd(Isa isa, WinogradKernel* kernel) {
  static const WinogradKernel kKernels[] = {
#define SRT_WINOGRAD(rows, width, isa, IsaId, lanes)                           \
  {{&isa::Winograd, "winograd_f32_" #rows "x" #width "_" #isa, Isa::k##IsaId}, \
   lanes,                                                                      \
   (width) / (lanes),                                                          \
   rows},
#include "kernels/winograd/kernels.inc"
#undef SRT_WINOGRAD
  };
  for (const WinogradKernel& row : kKernels) {
    if (!IsaCovers(isa, row.kernel.isa)) continue;
    *kernel = row;
    return true;
  }
  return false;
}

}  // namespace sparsert
