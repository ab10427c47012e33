// SpmvFormat::kPerm of bytes: whole groups of four, or single ones. Include after generic.h,
// simd/dot_avx512vnni.h and simd/perm_avx512.h.
#pragma once

#include "kernels/qspmv/generic.h"
#include "kernels/spmv/walk_perm.h"

namespace sparsert {
namespace SRT_ISA {
namespace {

// Of single bytes, each vector of weights stands behind its places.
inline IntVec PermBytesSlice(const PackedSlices& m, int slice, const float* x) {
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
SRT_INLINE void PermBytesGroup(const PackedSlices& m, int slice, const float* const (&x)[N],
                               IntVec (&sums)[N]) {
  const uint64_t end = m.offsets[slice + 1];
  const float* w = m.values + m.offsets[slice] * (2 * Vec::kLanes);
  for (uint64_t i = m.offsets[slice]; i < end; i += kPermPair) {
    FetchWeights<kPermPair * 2 * Vec::kLanes>(w);
    Vec places[kPermPair];
    ByteWeights weights[kPermPair];
#pragma GCC unroll 2
    for (int u = 0; u < kPermPair; ++u, w += 2 * Vec::kLanes) {
      places[u] = LoadU(w);
      weights[u] = LoadLaneWeights(w + Vec::kLanes);
    }
    const auto permute = [](Vec low, Vec high, Vec at) { return PermuteBytes(low, high, at); };
    MultiplyPair<Bytes>(weights, places, x, m.widths[i / kPermPair], permute, sums);
  }
}

struct Perm {
  static constexpr bool kIsSorted = true;
  static constexpr bool kHasGroup = true;
  static constexpr int kSlices = 1;
  static constexpr int kVecs = 1;
  template <int N>
  static void Multiply(const PackedSlices& m, int slice, const float* const (&x)[N],
                       IntVec (&sums)[1][N]) {
    if constexpr (N == 1) {
      if (!m.perm_pairs) {
        sums[0][0] = m.whole_groups ? PermSlice<Bytes>(m, slice, x[0], sums[0][0])
                                    : PermBytesSlice(m, slice, x[0]);
        return;
      }
    }
    static_assert(kPermGroups == kPermPairFloats, "both are of four bytes");
    float wholes[N][kPermGroups];
    const float* whole[N];
    for (int v = 0; v < N; ++v) whole[v] = WholeStretch(x[v], m.cols, wholes[v]);
    if (m.whole_groups) {
      PermGroup<Bytes>(m, slice, whole, sums[0]);
    } else {
      PermBytesGroup(m, slice, whole, sums[0]);
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
