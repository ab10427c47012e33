// The table of subsample kernels and the choice among them.
#include "kernels/subsample/subsample.h"

#if !defined(SRT_ARM)  // see kHasTiledPlanes

#include "kernels/select.h"

namespace sparsert {

#define SRT_SUBSAMPLE(isa, IsaId, lanes)                                                        \
  namespace isa {                                                                               \
  void Subsample(const void* args, void* const* io, int64_t begin, int64_t end, void* scratch); \
  }
#include "kernels/subsample/kernels.inc"
#undef SRT_SUBSAMPLE

bool SelectSubsample(Isa isa, Kernel* kernel, int* lanes) {
  struct Row {
    Kernel kernel;
    int lanes;
  };
  static const Row kRows[] = {
#define SRT_SUBSAMPLE(isa, IsaId, lanes) \
  {{&isa::Subsample, "subsample_f32_" #isa, Isa::k##IsaId}, lanes},
#include "kernels/subsample/kernels.inc"
#undef SRT_SUBSAMPLE
  };
  for (const Row& row : kRows) {
    if (!IsaCovers(isa, row.kernel.isa)) continue;
    *kernel = row.kernel;
    *lanes = row.lanes;
    return true;
  }
  return false;
}

}  // namespace sparsert

#endif
