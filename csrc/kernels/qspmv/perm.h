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
  if (m.whole_groups) return PermGroupsSlice(m, slice, x);
  float whole[kPermGroups];
  x = WholeStretch(x, m.cols, whole);
  const uint64_t end = m.offsets[slice + 1];
  uint64_t i = m.offsets[slice];
  const float* w = m.values + i * (2 * Vec::kLanes);
  IntVec acc[4] = {SetInts(0), SetInts(0), SetInts(0), SetInts(0)};
  for (; i + 4 <= end; i += 4) {
#pragma GCC unroll 4
    for (int u = 0; u < 4; ++u) {
      const ByteVec xs = PermuteBytes(x + m.widths[i + u], w);
      acc[u] = Dot(xs, LoadLaneWeights(w + Vec::kLanes), acc[u]);
      w += 2 * Vec::kLanes;
    }
  }
  for (; i < end; ++i, w += 2 * Vec::kLanes) {
    acc[0] = Dot(PermuteBytes(x + m.widths[i], w), LoadLaneWeights(w + Vec::kLanes), acc[0]);
  }
  return AddInts(AddInts(acc[0], acc[1]), AddInts(acc[2], acc[3]));
}

}  // namespace

void QspmvPerm(const void* args, void* const* io, int64_t begin, int64_t end, void* scratch);
void QspmvPerm(const void* args, void* const* io, int64_t begin, int64_t end, void*) {
  RunQspmv<SpmvFormat::kPerm>(args, io, begin, end, PermSlice);
}

}  // namespace SRT_ISA
}  // namespace sparsert
