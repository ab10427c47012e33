// The table of spmm kernels and the choice among them.
#include "kernels/spmm/spmm.h"

#include <algorithm>

#include "base/arch.h"
#include "kernels/select.h"

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
    const bool runs = IsaCovers(isa, candidate.kernel.isa);
    if (candidate.format == format && runs) {
      *kernel = candidate;
      return true;
    }
  }
  return false;
}

const char* SpmmFormatName(SpmmFormat format) {
  static const char* const kNames[] = {"dense", "csr",  "pat4",    "bsr4",   "bsr8", "dense8",
                                       "csr2",  "csr4", "dense16", "bits16", "any4"};
  return kNames[static_cast<int>(format)];
}

size_t SpmmScratch(const SpmmArgs& a, int lanes, int block_depth) {
  const int64_t width = static_cast<int64_t>(a.by_blocks ? a.vecs : a.tile_vecs) * lanes;
  int64_t sums = 0;
  for (int32_t g = 0; g < a.groups; ++g) {
    const PackedMatrix& m = a.weights[g];
    if (m.blocks <= 1) continue;
    const int32_t* bounds = a.split_panels + static_cast<int64_t>(g) * (a.splits + 1);
    for (int32_t s = 0; s < a.splits; ++s) {
      const int64_t panels = bounds[s + 1] - bounds[s];
      sums = std::max(sums, panels * m.panel_rows * width);
    }
  }
  return static_cast<size_t>(SpmmFeedFloats(a, lanes, block_depth) + sums) * sizeof(float);
}

SpmmSquareFloats SpmmSquareFloatsOf(const SpmmArgs& a, int block_depth) {
  constexpr int kLanes = 16;
  constexpr int kPiecesFloats = 3 * 256;      // of 16 rows or columns times 32 K-rows
  constexpr int64_t kKeptFloats = 192 << 10;  // of pieces that stay in L2 from tile to tile
  const int64_t steps = (block_depth + 31) / 32;
  SpmmSquareFloats s;
  s.x = steps * a.tile_vecs * kPiecesFloats;
  s.w = steps * 2 * kPiecesFloats;
  s.stage = static_cast<int64_t>(block_depth) * kLanes;
  s.sums = 2 * 32 * 32;
  s.places = 2;
  s.keeps = false;
  if (a.tiles == 1 && a.batch == 1) return s;
  int64_t places = 0;
  for (int32_t g = 0; g < a.groups; ++g) {
    const int32_t* bounds = a.split_panels + static_cast<int64_t>(g) * (a.splits + 1);
    for (int32_t i = 0; i < a.splits; ++i) {
      const int64_t pairs = (bounds[i + 1] - bounds[i] + 1) / 2;
      places = std::max(places, pairs * a.weights[g].blocks);
    }
  }
  if (places < 2 || places * s.w > kKeptFloats) return s;
  s.places = static_cast<int32_t>(places);
  s.keeps = true;
  return s;
}

size_t SpmmSquareScratch(const SpmmArgs& a, int block_depth) {
  const SpmmSquareFloats s = SpmmSquareFloatsOf(a, block_depth);
  int64_t sums = 0;
  for (int32_t g = 0; g < a.groups; ++g) {
    if (a.weights[g].blocks <= 1) continue;
    const int32_t* bounds = a.split_panels + static_cast<int64_t>(g) * (a.splits + 1);
    for (int32_t i = 0; i < a.splits; ++i) {
      const int64_t pairs = (bounds[i + 1] - bounds[i] + 1) / 2;
      sums = std::max(sums, pairs * ((a.tile_vecs + 1) / 2) * 32 * 32);
    }
  }
  return static_cast<size_t>((a.direct ? 2 : 1) * s.x + s.stage + s.places * s.w + s.sums + sums) *
         sizeof(float);
}

}  // namespace sparsert
