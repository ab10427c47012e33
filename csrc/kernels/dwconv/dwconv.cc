// The table of dwconv kernels and the choice among them.
#include "kernels/dwconv/dwconv.h"

#include "base/arch.h"
#include "kernels/select.h"

namespace sparsert {

#define SRT_DWCONV(isa, IsaId, lanes)                                                             \
  namespace isa {                                                                                 \
  void DwconvDense(const void* args, void* const* io, int64_t begin, int64_t end, void* scratch); \
  }
#include "kernels/dwconv/kernels.inc"
#undef SRT_DWCONV

bool SelectDwconv(Isa isa, Kernel* kernel, int* lanes) {
  struct Row {
    Kernel kernel;
    int lanes;
  };
  static const Row kRows[] = {
#define SRT_DWCONV(isa, IsaId, lanes) \
  {{&isa::DwconvDense, "dwconv_dense_f32_1x" #lanes "_" #isa, Isa::k##IsaId}, lanes},
#include "kernels/dwconv/kernels.inc"
#undef SRT_DWCONV
  };
  for (const Row& row : kRows) {
    const bool runs = IsaCovers(isa, row.kernel.isa);
    if (!runs) continue;
    *kernel = row.kernel;
    *lanes = row.lanes;
    return true;
  }
  return false;
}

}  // namespace sparsert
