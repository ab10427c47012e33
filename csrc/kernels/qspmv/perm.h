// SpmvFormat::kPerm of bytes. Include after generic.h, where there are PermuteBytes,
// PermuteFloats and WholeStretch.
#pragma once

#include "kernels/qspmv/generic.h"

namespace sparsert {
namespace SRT_ISA {
namespace {

// Groups of four bytes in the place of floats (see kernels/spmv/perm.h).
inline IntVec PermGroupsSlice(const PackedSlices& m, int slice, const float* x) {
  float whole[kPermFloats];
  x = WholeStretch(x, m.cols, whole);
  constexpr int kPlaceFloats = kPermVectors * Vec::kLanes / 4;
  const uint64_t end = m.offsets[slice + 1];
  const float* w = m.values + m.offsets[slice] * (Vec::kLanes + kPlaceFloats / kPermVectors);
  IntVec acc[kPermVectors] = {SetInts(0), SetInts(0), SetInts(0), SetInts(0)};
  for (uint64_t i = m.offsets[slice]; i < end; i += kPermVectors) {
    const auto* places = reinterpret_cast<const uint8_t*>(w);
    w += kPlaceFloats;
#pragma GCC unroll 4
    for (int u = 0; u < kPermVectors; ++u) {
      const Vec xs = PermuteFloats(x + m.widths[i + u], places + u * Vec::kLanes);
      acc[u] = Dot(ToBytes(xs), LoadLaneWeights(w + u * Vec::kLanes), acc[u]);
    }
    w += kPermVectors * Vec::kLanes;
  }
  return AddInts(AddInts(acc[0], acc[1]), AddInts(acc[2], acc[3]));
}

inline IntVec PermSlice(const PackedSlices& m, int slice, const float* x) {
  float whole[kPermGroups];
  x = WholeStretch(x, m.cols, whole);
  const uint64_t end = m.offsets[slice + 1];
  uint64_t i = m.offsets[slice];
  const float* w = m.values + i * (2 * Vec::kLanes);
  IntVec acc[4] = {SetInts(0), SetInts(0), SetInts(0), SetInts(0)};
  for (; i + 4 <= end; i += 4) {
#pragma GCC unroll 4
    for (int u = 0; u < 4; ++u) {
      const ByteVec xs = PermuteBytes(x + m.widths[i + u], LoadU(w));
      acc[u] = Dot(xs, LoadLaneWeights(w + Vec::kLanes), acc[u]);
      w += 2 * Vec::kLanes;
    }
  }
  for (; i < end; ++i, w += 2 * Vec::kLanes) {
    acc[0] = Dot(PermuteBytes(x + m.widths[i], LoadU(w)), LoadLaneWeights(w + Vec::kLanes), acc[0]);
  }
  return AddInts(AddInts(acc[0], acc[1]), AddInts(acc[2], acc[3]));
}

// The same of N vectors, in pairs of vectors of weights.
template <int N>
SRT_INLINE void PermGroup(const PackedSlices& m, int slice, const float* const (&x)[N],
                          IntVec (&sums)[N]) {
  const uint64_t end = m.offsets[slice + 1];
  const float* w = m.values + m.offsets[slice] * (2 * Vec::kLanes);
  for (uint64_t i = m.offsets[slice]; i < end; i += kPermPair) {
    FetchWeights<kPermPair * 2 * Vec::kLanes>(w);
    const uint32_t stretch = m.widths[i / kPermPair];
    Vec places[kPermPair];
    ByteWeights weights[kPermPair];
#pragma GCC unroll 2
    for (int u = 0; u < kPermPair; ++u, w += 2 * Vec::kLanes) {
      places[u] = LoadU(w);
      weights[u] = LoadLaneWeights(w + Vec::kLanes);
    }
#pragma GCC unroll 8
    for (int v = 0; v < N; ++v) {
      Vec low = LoadU(x[v] + stretch);
      Vec high = LoadU(x[v] + stretch + Vec::kLanes);
      KeepInRegister(&low);
      KeepInRegister(&high);
#pragma GCC unroll 2
      for (int u = 0; u < kPermPair; ++u) {
        sums[v] = Dot(PermuteBytes(low, high, places[u]), weights[u], sums[v]);
      }
    }
  }
}

// Of whole groups.
template <int N>
SRT_INLINE void PermGroupsGroup(const PackedSlices& m, int slice, const float* const (&x)[N],
                                IntVec (&sums)[N]) {
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
      ByteWeights weights[kPermPair];
#pragma GCC unroll 2
      for (int u = 0; u < kPermPair; ++u, bytes += Vec::kLanes, w += Vec::kLanes) {
        places[u] = LoadShortPlaces(bytes);
        weights[u] = LoadLaneWeights(w);
      }
#pragma GCC unroll 8
      for (int v = 0; v < N; ++v) {
        Vec low = LoadU(x[v] + stretch);
        Vec high = LoadU(x[v] + stretch + Vec::kLanes);
        KeepInRegister(&low);
        KeepInRegister(&high);
#pragma GCC unroll 2
        for (int u = 0; u < kPermPair; ++u) {
          sums[v] = Dot(ToBytes(PermuteShort(low, high, places[u])), weights[u], sums[v]);
        }
      }
    }
  }
}

struct Perm {
  static constexpr bool kIsSorted = true;
  static constexpr bool kHasGroup = true;
  static constexpr int kSlices = 1;
  template <int S, int N>
  static void Group(const PackedSlices& m, int slice, const float* const (&x)[N],
                    IntVec (&sums)[S][N]) {
    if constexpr (N == 1) {
      if (!m.perm_pairs) {
        sums[0][0] = m.whole_groups ? PermGroupsSlice(m, slice, x[0]) : PermSlice(m, slice, x[0]);
        return;
      }
    }
    static_assert(kPermGroups == kPermPairFloats, "both are of four bytes");
    float wholes[N][kPermGroups];
    const float* whole[N];
    for (int v = 0; v < N; ++v) {
      whole[v] = WholeStretch(x[v], m.cols, wholes[v]);
      sums[0][v] = SetInts(0);
    }
    if (m.whole_groups) {
      PermGroupsGroup(m, slice, whole, sums[0]);
    } else {
      PermGroup(m, slice, whole, sums[0]);
    }
  }
};

}  // namespace

void QspmvPerm(const void* args, void* const* io, int64_t begin, int64_t end, void* scratch);
void QspmvPerm(const void* args, void* const* io, int64_t begin, int64_t end, void*) {
  RunQspmv<Perm>(args, io, begin, end);
}

}  // namespace SRT_ISA
}  // namespace sparsert
