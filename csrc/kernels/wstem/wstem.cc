// The table of wstem kernels, and how their weights are transformed.
#include "kernels/wstem/wstem.h"

#if defined(SRT_X86)  // see kHasWstem

#include <cmath>

#include "kernels/select.h"

namespace sparsert {

#define SRT_WSTEM(rows, width, isa, IsaId)                                                  \
  namespace isa {                                                                           \
  void Wstem(const void* args, void* const* io, int64_t begin, int64_t end, void* scratch); \
  }
#include "kernels/wstem/kernels.inc"
#undef SRT_WSTEM

bool SelectWstem(Isa isa, Kernel* kernel) {
  static const Kernel kRows[] = {
#define SRT_WSTEM(rows, width, isa, IsaId) \
  {&isa::Wstem, "wstem_dense_f32_" #rows "x" #width "_" #isa, Isa::k##IsaId},
#include "kernels/wstem/kernels.inc"
#undef SRT_WSTEM
  };
  return SelectKernel(kRows, isa, kernel);
}

namespace {

// G of even and odd weights.
constexpr double kG[2][kWstemPoints][4] = {{{1.0 / 2, 0, 0, 0},
                                            {-1.0 / 2, -1.0 / 2, -1.0 / 2, -1.0 / 2},
                                            {-1.0 / 6, 1.0 / 6, -1.0 / 6, 1.0 / 6},
                                            {1.0 / 6, 1.0 / 3, 2.0 / 3, 4.0 / 3},
                                            {0, 0, 0, 1}},
                                           {{-1, 0, 0, 0},
                                            {1.0 / 2, 1.0 / 2, 1.0 / 2, 0},
                                            {1.0 / 2, -1.0 / 2, 1.0 / 2, 0},
                                            {0, 0, 0, 0},
                                            {0, 0, 1, 0}}};

// G g G^T at one point; w: a kernel.
double TransformedWeight(const float* w, int row, int row_parity, int column, int column_parity) {
  double sum = 0.0;
  for (int i = 0; 2 * i + row_parity < kWstemKernel; ++i) {
    for (int j = 0; 2 * j + column_parity < kWstemKernel; ++j) {
      sum += kG[row_parity][row][i] * kG[column_parity][column][j] *
             w[(2 * i + row_parity) * kWstemKernel + 2 * j + column_parity];
    }
  }
  return sum;
}

}  // namespace

bool PackWstem(const StemArgs& a, float* to) {
  constexpr int64_t kTaps = kWstemKernel * kWstemKernel;
  const int64_t count = a.channels * a.in_channels * kTaps;
  for (int64_t i = 0; i < count; ++i) {
    if (!std::isfinite(a.weights[i])) return false;
  }
  for (int64_t at = 0; at < kWstemPoints * WstemPanels(a); ++at) {
    const int column = static_cast<int>(at / WstemPanels(a));
    const int64_t panel = at % WstemPanels(a);
    const int parities = WstemParities(column);
    for (int row = 0; row < kWstemPoints; ++row) {
      for (int k = 0; k < WstemDepth(column, row, a.in_channels); ++k) {
        const int both = k / a.in_channels;
        for (int r = 0; r < kWstemRows; ++r, ++to) {
          const int64_t channel = panel * kWstemRows + r;
          *to = 0.0f;
          if (channel >= a.channels) continue;
          const float* w = a.weights + (channel * a.in_channels + k % a.in_channels) * kTaps;
          *to = static_cast<float>(
              TransformedWeight(w, row, both / parities, column, both % parities));
        }
      }
    }
  }
  return true;
}

WstemFloats WstemFloatsOf(const StemArgs& a) {
  const int64_t vecs = WstemPatchVecs(a);
  const int64_t strip = (vecs < kWstemVecs ? vecs : kWstemVecs) * kWstemLanes;
  WstemFloats s;
  s.phases = 4 * (vecs + 1) * kWstemLanes;
  s.plain = kWstemInputs * a.in_channels * s.phases;
  s.ring = kWstemInputs * a.in_channels * kWstemInputs * vecs * kWstemLanes;
  s.v = kWstemProducts * a.in_channels * strip;
  s.m = (kWstemPoints - 1) * kWstemRows * strip;
  s.half = WstemPanels(a) * kWstemRows * 2 * kWstemPoints * strip;
  s.row = a.pool ? a.channels * vecs * 2 * kWstemLanes : 0;
  s.edge = a.pool ? a.channels * kWstemLanes : 0;
  return s;
}

size_t WstemScratch(const StemArgs& a) {
  const WstemFloats s = WstemFloatsOf(a);
  return static_cast<size_t>(s.plain + s.ring + s.v + s.m + s.half + s.row + s.edge) *
         sizeof(float);
}

}  // namespace sparsert

#endif
