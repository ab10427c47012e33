// The table of spmv kernels and the choice among them.
#include "kernels/spmv/spmv.h"

#include "base/arch.h"
#include "kernels/select.h"

namespace sparsert {

#define SRT_SPMV(format, Format, isa, IsaId, lanes)                                                \
  namespace isa {                                                                                  \
  void Spmv##Format(const void* args, void* const* io, int64_t begin, int64_t end, void* scratch); \
  }
#include "kernels/spmv/kernels.inc"
#undef SRT_SPMV

bool SelectSpmv(SpmvFormat format, Isa isa, Kernel* kernel, int* lanes) {
  struct Row {
    Kernel kernel;
    SpmvFormat format;
    int lanes;
  };
  static const Row kRows[] = {
#define SRT_SPMV(format, Format, isa, IsaId, lanes)                                \
  {{&isa::Spmv##Format, "spmv_" #format "_f32_" #lanes "x1_" #isa, Isa::k##IsaId}, \
   SpmvFormat::k##Format,                                                          \
   lanes},
#include "kernels/spmv/kernels.inc"
#undef SRT_SPMV
  };
  for (const Row& row : kRows) {
    const bool runs = IsaCovers(isa, row.kernel.isa);
    if (!runs || row.format != format) continue;
    *kernel = row.kernel;
    *lanes = row.lanes;
    return true;
  }
  return false;
}

}  // namespace sparsert
