// The table of qspmv kernels and the choice among them.
#include "kernels/qspmv/qspmv.h"

#include "base/arch.h"
#include "kernels/select.h"

namespace sparsert {

#define SRT_QSPMV(format, Format, isa, IsaId, lanes, offset)                        \
  namespace isa {                                                                   \
  void Qspmv##Format(const void* args, void* const* io, int64_t begin, int64_t end, \
                     void* scratch);                                                \
  }
#include "kernels/qspmv/kernels.inc"
#undef SRT_QSPMV

namespace {

bool PermutesBytes() {
#if defined(SRT_X86)
  return __builtin_cpu_supports("avx512vbmi") != 0;
#else
  return false;
#endif
}

}  // namespace

bool SelectQspmv(SpmvFormat format, Isa isa, Kernel* kernel, int* lanes, int* byte_offset) {
  struct Row {
    Kernel kernel;
    SpmvFormat format;
    int lanes;
    int byte_offset;
  };
  static const Row kRows[] = {
#define SRT_QSPMV(format, Format, isa, IsaId, lanes, offset)                        \
  {{&isa::Qspmv##Format, "qspmv_" #format "_i8_" #lanes "x1_" #isa, Isa::k##IsaId}, \
   SpmvFormat::k##Format,                                                           \
   lanes,                                                                           \
   offset},
#include "kernels/qspmv/kernels.inc"
#undef SRT_QSPMV
  };
  for (const Row& row : kRows) {
    if (row.format != format || !IsaCovers(isa, row.kernel.isa)) continue;
    if (format == SpmvFormat::kPerm && !PermutesBytes()) continue;
    *kernel = row.kernel;
    *lanes = row.lanes;
    *byte_offset = row.byte_offset;
    return true;
  }
  return false;
}

}  // namespace sparsert
