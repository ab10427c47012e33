// Walks over slices of SpmvFormat::kPerm, of floats or whole groups of four bytes (see walks.h).
// Include where there is simd/perm_avx512.h.
#pragma once

#include "kernels/spmv/walks.h"

namespace sparsert {
namespace SRT_ISA {
namespace {

// Of kPermVectors vectors of weights: floats of their places, and of these and the weights.
constexpr int kPlaceFloats = kPermVectors * Vec::kLanes / 4;
constexpr int kPermFourFloats = kPlaceFloats + kPermVectors * Vec::kLanes;

inline const float* FindPerm(const PackedSlices& m, int slice) {
  return m.values + m.offsets[slice] / kPermVectors * kPermFourFloats;
}

template <typename Kind>
inline typename Kind::Sum PermSlice(const PackedSlices& m, int slice, const float* x,
                                    typename Kind::Sum sum) {
  float whole[kPermFloats];
  x = WholeStretch(x, m.cols, whole);
  typename Kind::Sum acc[kPermVectors] = {sum, Kind::None(), Kind::None(), Kind::None()};
  const uint64_t end = m.offsets[slice + 1];
  const float* w = FindPerm(m, slice);
  for (uint64_t i = m.offsets[slice]; i < end; i += kPermVectors) {
    const auto* places = reinterpret_cast<const uint8_t*>(w);
    w += kPlaceFloats;
#pragma GCC unroll 4
    for (int u = 0; u < kPermVectors; ++u) {
      const Vec xs = PermuteFloats(x + m.widths[i + u], places + u * Vec::kLanes);
      acc[u] =
          Kind::Multiply(LoadWeightsOf<Kind>(w + u * Vec::kLanes), Kind::ToElements(xs), acc[u]);
    }
    w += kPermVectors * Vec::kLanes;
  }
  return Kind::Add(Kind::Add(acc[0], acc[1]), Kind::Add(acc[2], acc[3]));
}

// A pair of vectors of weights, with one stretch of each of N vectors; `permute` gets both halves
// of a stretch and a place of `places`.
template <typename Kind, int N, typename Places, typename Permute>
SRT_INLINE void MultiplyPair(const typename Kind::Weights (&weights)[kPermPair],
                             const Places (&places)[kPermPair], const float* const (&x)[N],
                             uint32_t stretch, Permute permute, typename Kind::Sum (&sums)[N]) {
#pragma GCC unroll 8
  for (int v = 0; v < N; ++v) {
    Vec low = LoadU(x[v] + stretch);
    Vec high = LoadU(x[v] + stretch + Vec::kLanes);
    KeepInRegister(&low);
    KeepInRegister(&high);
#pragma GCC unroll 2
    for (int u = 0; u < kPermPair; ++u) {
      sums[v] = Kind::Multiply(weights[u], permute(low, high, places[u]), sums[v]);
    }
  }
}

// Of N vectors of at least kPermPairFloats (see WholeStretch()), in pairs of vectors of weights.
template <typename Kind, int N>
SRT_INLINE void PermGroup(const PackedSlices& m, int slice, const float* const (&x)[N],
                          typename Kind::Sum (&sums)[N]) {
  const uint64_t end = m.offsets[slice + 1];
  const float* w = FindPerm(m, slice);
  for (uint64_t i = m.offsets[slice]; i < end; i += kPermVectors) {
    FetchWeights<kPermFourFloats>(w);
    const auto* bytes = reinterpret_cast<const uint8_t*>(w);
    w += kPlaceFloats;
#pragma GCC unroll 2
    for (int pair = 0; pair < kPermVectors / kPermPair; ++pair) {
      ShortPlaces places[kPermPair];
      typename Kind::Weights weights[kPermPair];
#pragma GCC unroll 2
      for (int u = 0; u < kPermPair; ++u, bytes += Vec::kLanes, w += Vec::kLanes) {
        places[u] = LoadShortPlaces(bytes);
        weights[u] = LoadWeightsOf<Kind>(w);
      }
      const auto permute = [](Vec low, Vec high, const ShortPlaces& at) {
        // 0 where a weight has no place, or any x.
        const Vec xs =
            Kind::kMayBeInfinite ? PermuteShortUsed(low, high, at) : PermuteShort(low, high, at);
        return Kind::ToElements(xs);
      };
      MultiplyPair<Kind>(weights, places, x, m.widths[i / kPermPair + pair], permute, sums);
    }
  }
}

}  // namespace
}  // namespace SRT_ISA
}  // namespace sparsert
