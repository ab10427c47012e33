// qspmv over Vec and groups of four bytes.
// Included once per instruction set, after its vec_*.h and dot_*.h, with SRT_ISA defined.
#pragma once

#include <cmath>
#include <cstring>

#include "base/arch.h"
#include "kernels/qspmv/qspmv.h"
#include "kernels/spmv/walk_bits.h"
#include "simd/vec_math.h"

namespace sparsert {
namespace SRT_ISA {
namespace {

// Missing groups of a row are 0: they add nothing, whatever x holds.
inline IntVec SellSlice(const PackedSlices& m, int slice, const float* x) {
  IntVec even = SetInts(0);
  IntVec odd = SetInts(0);
  for (int block = 0; block < m.col_blocks; ++block) {
    const size_t at = static_cast<size_t>(block) * m.slices + slice;
    const uint32_t width = m.widths[at];
    const uint16_t* id = m.ids + m.offsets[at] * Vec::kLanes;
    const float* w = m.values + m.offsets[at] * Vec::kLanes;
    const float* xb = x + block * kSpmvColBlock;
    uint32_t j = 0;
    for (; j + 2 <= width; j += 2) {
      even = Dot(ToBytes(GatherU16(xb, id)), LoadLaneWeights(w), even);
      odd = Dot(ToBytes(GatherU16(xb, id + Vec::kLanes)), LoadLaneWeights(w + Vec::kLanes), odd);
      w += 2 * Vec::kLanes;
      id += 2 * Vec::kLanes;
    }
    if (j < width) even = Dot(ToBytes(GatherU16(xb, id)), LoadLaneWeights(w), even);
  }
  return AddInts(even, odd);
}

inline IntVec DenseSlice(const PackedSlices& m, int slice, const float* x) {
  const float* w = m.values + static_cast<size_t>(slice) * m.cols * Vec::kLanes;
  IntVec acc[4] = {SetInts(0), SetInts(0), SetInts(0), SetInts(0)};
  int k = 0;
  for (; k + 4 <= m.cols; k += 4) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      acc[i] = Dot(SetBytes(x + k + i), LoadLaneWeights(w + i * Vec::kLanes), acc[i]);
    }
    w += 4 * Vec::kLanes;
  }
  for (; k < m.cols; ++k, w += Vec::kLanes) {
    acc[0] = Dot(SetBytes(x + k), LoadLaneWeights(w), acc[0]);
  }
  return AddInts(AddInts(acc[0], acc[1]), AddInts(acc[2], acc[3]));
}

template <int N>
SRT_INLINE void BitsSlices(const PackedSlices& m, int slice, const float* x, IntVec (&sums)[N]) {
  IntVec odd[N];
#pragma GCC unroll 2
  for (int s = 0; s < N; ++s) sums[s] = odd[s] = SetInts(0);
  WalkBits(
      m, slice, x, [](const float* p) { return SetBytes(p); },
      [](Vec weights, ByteVec xs, IntVec acc) { return Dot(xs, ToWeights(weights), acc); }, sums,
      odd);
#pragma GCC unroll 2
  for (int s = 0; s < N; ++s) sums[s] = AddInts(sums[s], odd[s]);
}

inline IntVec BitsSlice(const PackedSlices& m, int slice, const float* x) {
  IntVec sums[1];
  BitsSlices(m, slice, x, sums);
  return sums[0];
}

inline float Limit(float a, int low, int high) {
  const float above = a > static_cast<float>(low) ? a : static_cast<float>(low);
  return above < static_cast<float>(high) ? above : static_cast<float>(high);
}

// One row's sum and residual as their byte.
inline uint8_t ByteOf(const QspmmArgs& q, float z, uint8_t r) {
  float centred = std::nearbyint(Limit(z, q.low - q.zero, q.high - q.zero));
  const float sum = centred * q.sum_scale;
  const float residual = static_cast<float>(r - q.r_zero) * q.r_scale;
  centred = std::nearbyint(Limit(sum + residual, q.out_low - q.out_zero, q.out_high - q.out_zero));
  return static_cast<uint8_t>(static_cast<int>(centred) + q.out_zero);
}

// What becomes of the sums of a slice's rows, which may stand in any order; those that do not exist
// stand last.
__attribute__((noinline)) void EndSortedSlice(const QspmvArgs& a, const QspmmRows& rows, int slice,
                                              const float* r, float* y, IntVec total) {
  const QspmmArgs& q = a.output;
  const int first = slice * Vec::kLanes;
  const uint32_t* row_of = a.weights.row_of + first;
  const int left = a.weights.rows - first;
  const int count = left < Vec::kLanes ? left : Vec::kLanes;
  const Mask mask = FirstN(count);
  const auto gather = [&](const void* of_rows) {
    return GatherMask(static_cast<const float*>(of_rows), reinterpret_cast<const int32_t*>(row_of),
                      mask);
  };
  const IntVec sums = AddInts(total, ToInts(gather(rows.start)));
  Vec z = Mul(ToFloats(sums), gather(rows.scale));
  alignas(64) float lanes[Vec::kLanes];
  if (q.f32_output) {
    if (q.product.bias != nullptr) z = Add(z, gather(q.product.bias));
    if (r != nullptr) z = Add(z, gather(r));
    ApplyActivation(q.product.act, &z, 1);
    Store(lanes, z);
    for (int l = 0; l < count; ++l) y[row_of[l]] = lanes[l];
    return;
  }
  auto* y_bytes = reinterpret_cast<uint8_t*>(y);
  if (r != nullptr) {
    const auto* r_bytes = reinterpret_cast<const uint8_t*>(r);
    Store(lanes, z);
    for (int l = 0; l < count; ++l) {
      y_bytes[row_of[l]] = ByteOf(q, lanes[l], r_bytes[row_of[l]]);
    }
    return;
  }
  Store(lanes, RoundToBytes(z, z, z, z, MakeByteRange(q.zero, q.low, q.high)));
  const auto* bytes = reinterpret_cast<const uint8_t*>(lanes);
  for (int l = 0; l < count; ++l) y_bytes[row_of[l]] = bytes[4 * l];
}

// The same where the rows follow each other.
SRT_INLINE void EndSlice(const QspmvArgs& a, const QspmmRows& rows, int slice, const float* r,
                         float* y, IntVec total) {
  const QspmmArgs& q = a.output;
  const int first = slice * Vec::kLanes;
  const int left = a.weights.rows - first;
  if (left < Vec::kLanes || (r != nullptr && !q.f32_output)) {
    return EndSortedSlice(a, rows, slice, r, y, total);
  }
  alignas(64) int32_t start[Vec::kLanes];
  memcpy(start, rows.start + first, sizeof(start));
  Vec z = Mul(ToFloats(AddInts(total, LoadInts(start))), LoadU(rows.scale + first));
  if (q.f32_output) {
    if (q.product.bias != nullptr) z = Add(z, LoadU(q.product.bias + first));
    if (r != nullptr) z = Add(z, LoadU(r + first));
    ApplyActivation(q.product.act, &z, 1);
    return StoreU(y + first, z);
  }
  float groups[Vec::kLanes];
  StoreU(groups, RoundToBytes(z, z, z, z, MakeByteRange(q.zero, q.low, q.high)));
  uint8_t bytes[4 * Vec::kLanes];
  memcpy(bytes, groups, sizeof(bytes));
  auto* to = reinterpret_cast<uint8_t*>(y) + first;
  for (int l = 0; l < Vec::kLanes; ++l) to[l] = bytes[4 * l];
}

// `slice_sums` adds up the products of one slice.
template <SpmvFormat kFormat, typename SliceSums>
void RunQspmv(const void* args, void* const* io, int64_t begin, int64_t end, SliceSums slice_sums) {
  const QspmvArgs& a = *static_cast<const QspmvArgs*>(args);
  const QspmmArgs& q = a.output;
  const PackedSlices& m = a.weights;
  const QspmmRows rows = FindQspmmRows(q, m.rows, q.at_run ? io[3] : nullptr);
  for (int64_t item = begin; item < end; ++item) {
    const int64_t vector = item / a.chunks;
    const int64_t chunk = item % a.chunks;
    const float* x = static_cast<const float*>(io[0]) + vector * a.x_row;
    const float* r =
        io[1] == nullptr ? nullptr : static_cast<const float*>(io[1]) + vector * a.r_row;
    float* y = static_cast<float*>(io[2]) + vector * a.y_row;
    const int slice_end = static_cast<int>((chunk + 1) * m.slices / a.chunks);
    int slice = static_cast<int>(chunk * m.slices / a.chunks);
    if constexpr (kFormat == SpmvFormat::kBits) {
      for (; slice + 2 <= slice_end; slice += 2) {
        IntVec sums[2];
        BitsSlices(m, slice, x, sums);
        EndSlice(a, rows, slice, r, y, sums[0]);
        EndSlice(a, rows, slice + 1, r, y, sums[1]);
      }
    }
    for (; slice < slice_end; ++slice) {
      const IntVec sums = slice_sums(m, slice, x);
      if constexpr (kFormat == SpmvFormat::kSell || kFormat == SpmvFormat::kPerm) {
        EndSortedSlice(a, rows, slice, r, y, sums);
      } else {
        EndSlice(a, rows, slice, r, y, sums);
      }
    }
    if (chunk + 1 == a.chunks && !q.f32_output) {  // channels that only fill the last element
      const int zero = r == nullptr ? q.zero : q.out_zero;
      auto* y_bytes = reinterpret_cast<uint8_t*>(y);
      for (int row = m.rows; row % 4 != 0; ++row) y_bytes[row] = static_cast<uint8_t>(zero);
    }
  }
}

}  // namespace

void QspmvDense(const void* args, void* const* io, int64_t begin, int64_t end, void* scratch);
void QspmvDense(const void* args, void* const* io, int64_t begin, int64_t end, void*) {
  RunQspmv<SpmvFormat::kDense>(args, io, begin, end, DenseSlice);
}

void QspmvSell(const void* args, void* const* io, int64_t begin, int64_t end, void* scratch);
void QspmvSell(const void* args, void* const* io, int64_t begin, int64_t end, void*) {
  RunQspmv<SpmvFormat::kSell>(args, io, begin, end, SellSlice);
}

void QspmvBits(const void* args, void* const* io, int64_t begin, int64_t end, void* scratch);
void QspmvBits(const void* args, void* const* io, int64_t begin, int64_t end, void*) {
  RunQspmv<SpmvFormat::kBits>(args, io, begin, end, BitsSlice);
}

}  // namespace SRT_ISA
}  // namespace sparsert
