// qspmv over Vec and groups of four bytes.
// Included once per instruction set, after its vec_*.h and dot_*.h, with SRT_ISA defined.
#pragma once

#include <cmath>
#include <cstring>

#include "base/arch.h"
#include "kernels/qspmv/qspmv.h"
#include "kernels/spmv/vector_group.h"
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

// S successive slices and N vectors.
template <int S, int N>
SRT_INLINE void DenseGroup(const PackedSlices& m, int slice, const float* const (&x)[N],
                           IntVec (&sums)[S][N]) {
  const int64_t apart = static_cast<int64_t>(m.cols) * Vec::kLanes;
  const float* w = m.values + slice * apart;
#pragma GCC unroll 4
  for (int s = 0; s < S; ++s) {
#pragma GCC unroll 8
    for (int v = 0; v < N; ++v) sums[s][v] = SetInts(0);
  }
  for (int k = 0; k < m.cols; ++k, w += Vec::kLanes) {
    ByteWeights weights[S];
#pragma GCC unroll 4
    for (int s = 0; s < S; ++s) {
      FetchWeights<Vec::kLanes>(w + s * apart);
      weights[s] = LoadLaneWeights(w + s * apart);
    }
#pragma GCC unroll 8
    for (int v = 0; v < N; ++v) {
      const ByteVec xs = SetBytes(x[v] + k);
#pragma GCC unroll 4
      for (int s = 0; s < S; ++s) sums[s][v] = Dot(xs, weights[s], sums[s][v]);
    }
  }
}

template <int S, int N>
SRT_INLINE void BitsGroup(const PackedSlices& m, int slice, const float* const (&x)[N],
                          IntVec (&sums)[S][N]) {
  const SliceMask* masks[S];
  const float* w[S];
#pragma GCC unroll 4
  for (int s = 0; s < S; ++s) {
    masks[s] =
        reinterpret_cast<const SliceMask*>(m.bits) + static_cast<int64_t>(slice + s) * m.cols;
    w[s] = m.values + m.offsets[slice + s];
#pragma GCC unroll 8
    for (int v = 0; v < N; ++v) sums[s][v] = SetInts(0);
  }
  for (int k = 0; k < m.cols; ++k) {
    ByteWeights weights[S];
#pragma GCC unroll 4
    for (int s = 0; s < S; ++s) {
      const uint32_t mask = masks[s][k];
      weights[s] = ToWeights(Spread(w[s], mask));
      w[s] += CountBits(mask);
    }
#pragma GCC unroll 8
    for (int v = 0; v < N; ++v) {
      const ByteVec xs = SetBytes(x[v] + k);
#pragma GCC unroll 4
      for (int s = 0; s < S; ++s) sums[s][v] = Dot(xs, weights[s], sums[s][v]);
    }
  }
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

// What becomes of the sums of a slice's rows, of N vectors. The rows may stand in any order; those
// that do not exist stand last.
template <int N>
__attribute__((noinline)) void EndSortedSlice(const QspmvArgs& a, const QspmmRows& rows, int slice,
                                              const float* r, float* y, const IntVec (&totals)[N]) {
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
  const IntVec start = ToInts(gather(rows.start));
  const Vec scale = gather(rows.scale);
  alignas(64) float lanes[Vec::kLanes];
  for (int v = 0; v < N; ++v, r = r == nullptr ? r : r + a.r_row, y += a.y_row) {
    Vec z = Mul(ToFloats(AddInts(totals[v], start)), scale);
    if (q.f32_output) {
      if (q.product.bias != nullptr) z = Add(z, gather(q.product.bias));
      if (r != nullptr) z = Add(z, gather(r));
      ApplyActivation(q.product.act, &z, 1);
      Store(lanes, z);
      for (int l = 0; l < count; ++l) y[row_of[l]] = lanes[l];
      continue;
    }
    auto* y_bytes = reinterpret_cast<uint8_t*>(y);
    if (r != nullptr) {
      const auto* r_bytes = reinterpret_cast<const uint8_t*>(r);
      Store(lanes, z);
      for (int l = 0; l < count; ++l) {
        y_bytes[row_of[l]] = ByteOf(q, lanes[l], r_bytes[row_of[l]]);
      }
      continue;
    }
    Store(lanes, RoundToBytes(z, z, z, z, MakeByteRange(q.zero, q.low, q.high)));
    const auto* bytes = reinterpret_cast<const uint8_t*>(lanes);
    for (int l = 0; l < count; ++l) y_bytes[row_of[l]] = bytes[4 * l];
  }
}

// The same where the rows follow each other.
SRT_INLINE void EndSlice(const QspmvArgs& a, const QspmmRows& rows, int slice, const float* r,
                         float* y, IntVec total) {
  const QspmmArgs& q = a.output;
  const int first = slice * Vec::kLanes;
  const int left = a.weights.rows - first;
  if (left < Vec::kLanes || (r != nullptr && !q.f32_output)) {
    const IntVec totals[1] = {total};
    return EndSortedSlice(a, rows, slice, r, y, totals);
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

// How a format adds up products: of a slice and a vector, or of S slices and N vectors.
struct Dense {
  static constexpr bool kIsSorted = false;
  static constexpr bool kHasGroup = true;
  static constexpr int kSlices = 1;
  template <int S, int N>
  static void Group(const PackedSlices& m, int slice, const float* const (&x)[N],
                    IntVec (&sums)[S][N]) {
    if constexpr (N == 1) {
      sums[0][0] = DenseSlice(m, slice, x[0]);
    } else {
      DenseGroup(m, slice, x, sums);
    }
  }
};

struct Sell {
  static constexpr bool kIsSorted = true;
  static constexpr bool kHasGroup = false;
  static constexpr int kSlices = 1;
  template <int S, int N>
  static void Group(const PackedSlices& m, int slice, const float* const (&x)[N],
                    IntVec (&sums)[S][N]) {
    sums[0][0] = SellSlice(m, slice, x[0]);
  }
};

struct Bits {
  static constexpr bool kIsSorted = false;
  static constexpr bool kHasGroup = true;
  static constexpr int kSlices = 2;
  template <int S, int N>
  static void Group(const PackedSlices& m, int slice, const float* const (&x)[N],
                    IntVec (&sums)[S][N]) {
    if constexpr (N == 1) {
      IntVec of_slices[S];
      BitsSlices(m, slice, x[0], of_slices);
#pragma GCC unroll 2
      for (int s = 0; s < S; ++s) sums[s][0] = of_slices[s];
    } else {
      BitsGroup(m, slice, x, sums);
    }
  }
};

template <typename Format, int S, int N>
SRT_INLINE void RunSlices(const QspmvArgs& a, const QspmmRows& rows, int slice,
                          const float* const (&x)[N], const float* r, float* y) {
  IntVec sums[S][N];
  Format::Group(a.weights, slice, x, sums);
  for (int s = 0; s < S; ++s) {
    if constexpr (Format::kIsSorted) {
      EndSortedSlice(a, rows, slice + s, r, y, sums[s]);
    } else {
      for (int v = 0; v < N; ++v) {
        EndSlice(a, rows, slice + s, r == nullptr ? r : r + v * a.r_row, y + v * a.y_row,
                 sums[s][v]);
      }
    }
  }
}

// One chunk of slices and N vectors.
template <typename Format, int N>
SRT_INLINE void RunChunk(const QspmvArgs& a, const QspmmRows& rows, int64_t chunk, const float* x,
                         const float* r, float* y) {
  const QspmmArgs& q = a.output;
  const PackedSlices& m = a.weights;
  const float* xs[N];
  for (int v = 0; v < N; ++v) xs[v] = x + v * a.x_row;
  const int slice_end = static_cast<int>((chunk + 1) * m.slices / a.chunks);
  int slice = static_cast<int>(chunk * m.slices / a.chunks);
  constexpr int kSlices = N == 1 || Format::kIsSorted
                              ? Format::kSlices
                              : SlicesOfGroup<N, sizeof(ByteVec) / sizeof(Vec)>();
  if constexpr (kSlices > 1) {
    for (; slice + kSlices <= slice_end; slice += kSlices) {
      RunSlices<Format, kSlices>(a, rows, slice, xs, r, y);
    }
  }
  for (; slice < slice_end; ++slice) RunSlices<Format, 1>(a, rows, slice, xs, r, y);
  if (chunk + 1 != a.chunks || q.f32_output) return;
  const int zero = r == nullptr ? q.zero : q.out_zero;
  for (int v = 0; v < N; ++v) {  // channels that only fill the last element
    auto* y_bytes = reinterpret_cast<uint8_t*>(y + v * a.y_row);
    for (int row = m.rows; row % 4 != 0; ++row) y_bytes[row] = static_cast<uint8_t>(zero);
  }
}

template <typename Format>
void RunQspmv(const void* args, void* const* io, int64_t begin, int64_t end) {
  const QspmvArgs& a = *static_cast<const QspmvArgs*>(args);
  const QspmmRows rows = FindQspmmRows(a.output, a.weights.rows, a.output.at_run ? io[3] : nullptr);
  for (int64_t item = begin; item < end; ++item) {
    const int64_t vector = item / a.chunks * a.group;
    const int64_t left = a.batch - vector;
    const float* x = static_cast<const float*>(io[0]) + vector * a.x_row;
    const float* r =
        io[1] == nullptr ? nullptr : static_cast<const float*>(io[1]) + vector * a.r_row;
    float* y = static_cast<float*>(io[2]) + vector * a.y_row;
    const auto run = [&](auto count) {
      RunChunk<Format, count.value>(a, rows, item % a.chunks, x, r, y);
    };
    WithVectorCount<Format::kHasGroup>(static_cast<int>(left < a.group ? left : a.group), run);
  }
}

}  // namespace

void QspmvDense(const void* args, void* const* io, int64_t begin, int64_t end, void* scratch);
void QspmvDense(const void* args, void* const* io, int64_t begin, int64_t end, void*) {
  RunQspmv<Dense>(args, io, begin, end);
}

void QspmvSell(const void* args, void* const* io, int64_t begin, int64_t end, void* scratch);
void QspmvSell(const void* args, void* const* io, int64_t begin, int64_t end, void*) {
  RunQspmv<Sell>(args, io, begin, end);
}

void QspmvBits(const void* args, void* const* io, int64_t begin, int64_t end, void* scratch);
void QspmvBits(const void* args, void* const* io, int64_t begin, int64_t end, void*) {
  RunQspmv<Bits>(args, io, begin, end);
}

}  // namespace SRT_ISA
}  // namespace sparsert
