// SpmvFormat::kPerm of floats. Include after generic.h, where there are PermuteFloats and
// WholeStretch.
#pragma once

#include "kernels/spmv/generic.h"

namespace sparsert {
namespace SRT_ISA {
namespace {

inline Vec PermSlice(const PackedSlices& m, int slice, const float* x, Vec sum) {
  float whole[kPermFloats];
  x = WholeStretch(x, m.cols, whole);
  constexpr int kPlaces = kPermVectors * Vec::kLanes;  // bytes
  constexpr int kPlaceFloats = kPlaces / 4;
  Vec acc[kPermVectors] = {sum, Zero(), Zero(), Zero()};
  const uint64_t end = m.offsets[slice + 1];
  const float* w = m.values + m.offsets[slice] * (Vec::kLanes + kPlaceFloats / kPermVectors);
  for (uint64_t i = m.offsets[slice]; i < end; i += kPermVectors) {
    const auto* places = reinterpret_cast<const uint8_t*>(w);
    w += kPlaceFloats;
#pragma GCC unroll 4
    for (int u = 0; u < kPermVectors; ++u) {
      const Vec xs = PermuteFloats(x + m.widths[i + u], places + u * Vec::kLanes);
      acc[u] = Fma(LoadU(w + u * Vec::kLanes), xs, acc[u]);
    }
    w += kPermVectors * Vec::kLanes;
  }
  return Add(Add(acc[0], acc[1]), Add(acc[2], acc[3]));
}

// Of N vectors, in pairs of vectors of weights.
template <int N>
SRT_INLINE void PermGroup(const PackedSlices& m, int slice, const float* const (&x)[N],
                          Vec (&sums)[N]) {
  float wholes[N][kPermPairFloats];
  const float* whole[N];
  for (int v = 0; v < N; ++v) whole[v] = WholeStretch(x[v], m.cols, wholes[v]);
  constexpr int kPlaceFloats = kPermVectors * Vec::kLanes / 4;
  const uint64_t end = m.offsets[slice + 1];
  const float* w = m.values + m.offsets[slice] * (Vec::kLanes + kPlaceFloats / kPermVectors);
  for (uint64_t i = m.offsets[slice]; i < end; i += kPermVectors) {
    FetchWeights<kPlaceFloats + kPermVectors * Vec::kLanes>(w);
    const auto* bytes = reinterpret_cast<const uint8_t*>(w);
    w += kPlaceFloats;
#pragma GCC unroll 2
    for (int pair = 0; pair < kPermVectors / kPermPair; ++pair) {
      const uint32_t stretch = m.widths[i / kPermPair + pair];
      ShortPlaces places[kPermPair];
      Vec weights[kPermPair];
#pragma GCC unroll 2
      for (int u = 0; u < kPermPair; ++u, bytes += Vec::kLanes, w += Vec::kLanes) {
        places[u] = LoadShortPlaces(bytes);
        weights[u] = LoadU(w);
      }
#pragma GCC unroll 8
      for (int v = 0; v < N; ++v) {
        Vec low = LoadU(whole[v] + stretch);
        Vec high = LoadU(whole[v] + stretch + Vec::kLanes);
        KeepInRegister(&low);
        KeepInRegister(&high);
#pragma GCC unroll 2
        for (int u = 0; u < kPermPair; ++u) {
          sums[v] = Fma(weights[u], PermuteShortUsed(low, high, places[u]), sums[v]);
        }
      }
    }
  }
}

}  // namespace

void SpmvPerm(const void* args, void* const* io, int64_t begin, int64_t end, void* scratch);
void SpmvPerm(const void* args, void* const* io, int64_t begin, int64_t end, void*) {
  RunSpmv<SpmvFormat::kPerm>(args, io, begin, end, PermSlice);
}

}  // namespace SRT_ISA
}  // namespace sparsert
