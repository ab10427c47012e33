// The table of stem kernels, and how their weights are packed.
#include "kernels/stem/stem.h"

#include "kernels/select.h"

namespace sparsert {

#define SRT_STEM(rows, width, isa, IsaId)                                                  \
  namespace isa {                                                                          \
  void Stem(const void* args, void* const* io, int64_t begin, int64_t end, void* scratch); \
  }
#include "kernels/stem/kernels.inc"
#undef SRT_STEM

bool SelectStem(Isa isa, Kernel* kernel) {
  // The last row, which no instruction set covers, is there for builds that have no other.
  static const Kernel kRows[] = {
#define SRT_STEM(rows, width, isa, IsaId) \
  {&isa::Stem, "stem_dense_f32_" #rows "x" #width "_" #isa, Isa::k##IsaId},
#include "kernels/stem/kernels.inc"
#undef SRT_STEM
      {},
  };
  for (const Kernel& row : kRows) {
    if (row.run == nullptr || !IsaCovers(isa, row.isa)) continue;
    *kernel = row;
    return true;
  }
  return false;
}

void PackStem(const StemArgs& a, float* to) {
  const int64_t rows = a.in_channels * a.kernel_h;
  for (int64_t panel = 0; panel < StemPanels(a); ++panel) {
    for (int64_t step = 0; step < StemSteps(a); ++step) {
      for (int64_t i = 0; i < kStemLanes; ++i) {
        const int64_t channel = panel * kStemLanes + i;
        for (int64_t half = 0; half < 2; ++half) {
          for (int64_t k = step * kStemLanes; k < (step + 1) * kStemLanes; ++k, ++to) {
            const int64_t row = 2 * (k / a.kernel_w) + half;
            *to = 0.0f;
            if (channel >= a.channels || row >= rows) continue;
            const int64_t plane = channel * a.in_channels + row % a.in_channels;
            *to =
                a.weights[(plane * a.kernel_h + row / a.in_channels) * a.kernel_w + k % a.kernel_w];
          }
        }
      }
    }
  }
}

StemFloats StemFloatsOf(const StemArgs& a) {
  constexpr int64_t kPieces = 3;
  const int64_t pairs = (StemPairs(a) + a.bands - 1) / a.bands;
  // The pool needs a row before those of the pairs.
  const int64_t rows = (2 * pairs * a.stride_h + a.kernel_h) * a.in_channels;
  StemFloats s;
  s.words = StemSets(a) * ((rows + 1) / 2 * a.kernel_w + kStemLanes) * (kPieces * kStemLanes);
  s.w = (StemPanels(a) + 1) / 2 * 2 * StemSteps(a) * (kPieces * kStemLanes * kStemLanes);
  s.sums = 4 * kStemLanes * kStemLanes;
  s.row = a.pool ? StemStrips(a) * StemPanels(a) * (kStemLanes * kStemLanes) : 0;
  s.edge = a.pool ? StemPanels(a) * kStemLanes * pairs : 0;
  return s;
}

size_t StemScratch(const StemArgs& a) {
  const StemFloats s = StemFloatsOf(a);
  return static_cast<size_t>(2 * s.words + s.w + 2 * s.sums + s.row + s.edge) * sizeof(float);
}

}  // namespace sparsert
