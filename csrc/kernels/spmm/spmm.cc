// The table of spmm kernels and the choice among them.
#include "kernels/spmm/spmm.h"

#include "base/arch.h"

namespace sparsert {

#define SRT_SPMM(format, Format, rows, width, isa, IsaId, lanes)                                   \
  namespace isa {                                                                                  \
  void Spmm##Format(const void* args, void* const* io, int64_t begin, int64_t end, void* scratch); \
  }
#include "kernels/spmm/kernels.inc"
#undef SRT_SPMM

namespace {

const SpmmKernel kKernels[] = {
#define SRT_SPMM(format, Format, rows, width, isa, IsaId, lanes)                           \
  {{&isa::Spmm##Format, "spmm_" #format "_f32_" #rows "x" #width "_" #isa, Isa::k##IsaId}, \
   SpmmFormat::k##Format,                                                                  \
   lanes,                                                                                  \
   (width) / (lanes)},
#include "kernels/spmm/kernels.inc"
#undef SRT_SPMM
};

}  // namespace

bool SelectSpmm(SpmmFormat format, Isa isa, SpmmKernel* kernel) {
  // Rows stand in falling order of preference within a format.
  for (const SpmmKernel& candidate : kKernels) {
    const bool runs = candidate.kernel.isa == isa || candidate.kernel.isa == Isa::kScalar ||
                      (candidate.kernel.isa == Isa::kAvx2 && isa == Isa::kAvx512);
    if (candidate.format == format && runs) {
      *kernel = candidate;
      return true;
    }
  }
  return false;
}

const char* SpmmFormatName(SpmmFormat format) {
  static const char* const kNames[] = {"dense", "csr", "pat4", "bsr4", "bsr8", "dense8"};
  return kNames[static_cast<int>(format)];
}

size_t SpmmScratch(const SpmmArgs& a, int lanes, int block_depth) {
  if (a.direct) return 0;
  return static_cast<size_t>(block_depth) * a.tile_vecs * lanes * sizeof(float);
}

}  // namespace sparsert
