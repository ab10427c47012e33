// The table of qspmm kernels and the choice among them.
#include "kernels/qspmm/qspmm.h"

#include "base/arch.h"
#include "kernels/select.h"

namespace sparsert {

#define SRT_QSPMM(format, Format, rows, width, isa, IsaId, lanes, offset)           \
  namespace isa {                                                                   \
  void Qspmm##Format(const void* args, void* const* io, int64_t begin, int64_t end, \
                     void* scratch);                                                \
  }
#include "kernels/qspmm/kernels.inc"
#undef SRT_QSPMM

namespace {

void FillRows(const void* args, void* const* io, int64_t, int64_t, void*) {
  const auto& a = *static_cast<const QspmmRowScalesArgs*>(args);
  const auto* params = static_cast<const float*>(io[0]);
  const float step = params[0];
  const auto zero = static_cast<int32_t>(params[1]);
  auto* header = static_cast<int32_t*>(io[1]);
  int32_t* start = header + kQspmmRowsHeader;
  float* scale = static_cast<float*>(io[1]) + kQspmmRowsHeader + QspmmPaddedRows(a.rows);
  header[0] = zero;
  for (int64_t r = 0; r < a.rows; ++r) start[r] = (a.byte_offset - zero) * a.weights[r];
  for (int64_t r = 0; r < a.rows; ++r) scale[r] = step * a.row_scale[r];
}

struct Row {
  Kernel kernel;
  SpmmFormat format;
  int lanes;
  int max_vecs;
  int byte_offset;
};

const Row kRows[] = {
#define SRT_QSPMM(format, Format, rows, width, isa, IsaId, lanes, offset)                   \
  {{&isa::Qspmm##Format, "qspmm_" #format "_i8_" #rows "x" #width "_" #isa, Isa::k##IsaId}, \
   SpmmFormat::k##Format,                                                                   \
   lanes,                                                                                   \
   (width) / (lanes),                                                                       \
   offset},
#include "kernels/qspmm/kernels.inc"
#undef SRT_QSPMM
};

}  // namespace

Kernel QspmmRowScales() { return {&FillRows, "qspmm_row_scales_scalar", Isa::kScalar}; }

bool SelectQspmm(SpmmFormat format, Isa isa, QspmmKernel* kernel) {
  // Rows stand in falling order of preference within a format.
  for (const Row& row : kRows) {
    if (row.format != format || !IsaCovers(isa, row.kernel.isa)) continue;
    kernel->kernel = row.kernel;
    kernel->format = row.format;
    kernel->lanes = row.lanes;
    kernel->max_vecs = row.max_vecs;
    kernel->byte_offset = row.byte_offset;
    return true;
  }
  return false;
}

size_t QspmmScratch(const QspmmArgs& a, const QspmmKernel& kernel, int block_depth) {
  const size_t bytes = SpmmScratch(a.product, kernel.lanes, block_depth);
  if (kHasAny4 && (kernel.format == SpmmFormat::kAny4 || kernel.format == SpmmFormat::kCsr4)) {
    // One block of csr4 has sums in memory as well.
    const int64_t panel = kernel.format == SpmmFormat::kCsr4
                              ? static_cast<int64_t>(a.product.weights[0].panel_rows) *
                                    a.product.tile_vecs * kernel.lanes
                              : 0;
    return bytes + static_cast<size_t>(QspmmPreparedFloats(kernel.lanes, block_depth) + panel) *
                       sizeof(float);
  }
  if (!SpmmHasSquares(kernel.format)) return bytes;
  const SquareScratchFloats s = SquareScratchOf(a.product, block_depth);
  return bytes + static_cast<size_t>(s.slab + s.sums + s.tail + s.spread) * sizeof(float) -
         static_cast<size_t>(SpmmFeedFloats(a.product, kernel.lanes, block_depth)) * sizeof(float);
}

}  // namespace sparsert
