// qspmv over Vec and groups of four bytes.
// Included once per instruction set, after its vec_*.h and dot_*.h, with SRT_ISA defined.
#pragma once

#include <cmath>
#include <cstring>

#include "base/arch.h"
#include "kernels/qspmv/qspmv.h"
#include "kernels/spmv/run_slices.h"
#include "simd/vec_math.h"

namespace sparsert {
namespace SRT_ISA {
namespace {

// See walks.h.
struct Bytes {
  using Weights = ByteWeights;
  using Elements = ByteVec;
  using Sum = IntVec;
  static constexpr int kRegisters = sizeof(ByteVec) / sizeof(Vec);
  static constexpr int kFetchVectors = 2;
  static constexpr bool kMayBeInfinite = false;
  static IntVec None() { return SetInts(0); }
  static ByteWeights ToWeights(Vec w) { return SRT_ISA::ToWeights(w); }
  static ByteVec ToElements(Vec x) { return ToBytes(x); }
  static IntVec Multiply(ByteWeights w, ByteVec x, IntVec sum) { return Dot(x, w, sum); }
  static IntVec Add(IntVec a, IntVec b) { return AddInts(a, b); }
};

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

struct Sell {
  static constexpr bool kIsSorted = true;
  static constexpr bool kHasGroup = false;
  static constexpr int kSlices = 1;
  static constexpr int kVecs = 1;
  static void Multiply(const PackedSlices& m, int slice, const float* const (&x)[1],
                       IntVec (&sums)[1][1]) {
    sums[0][0] = SellSlice(m, slice, x[0]);
  }
};

// See run_slices.h.
struct QspmvEnds {
  const QspmvArgs& a;
  QspmmRows rows;
  static IntVec Begin(int) { return SetInts(0); }
  void End(int slice, const float* r, float* y, IntVec sum) const {
    EndSlice(a, rows, slice, r, y, sum);
  }
  template <int N>
  void EndSorted(int slice, const float* r, float* y, const IntVec (&sums)[N]) const {
    EndSortedSlice(a, rows, slice, r, y, sums);
  }
  // Channels that only fill the last element.
  void EndChunk(int64_t chunk, int n, const float* r, float* y) const {
    const QspmmArgs& q = a.output;
    if (chunk + 1 != a.chunks || q.f32_output) return;
    const int zero = r == nullptr ? q.zero : q.out_zero;
    for (int v = 0; v < n; ++v) {
      auto* y_bytes = reinterpret_cast<uint8_t*>(y + v * a.y_row);
      for (int row = a.weights.rows; row % 4 != 0; ++row) y_bytes[row] = static_cast<uint8_t>(zero);
    }
  }
};

template <typename Format>
void RunQspmv(const void* args, void* const* io, int64_t begin, int64_t end) {
  const QspmvArgs& a = *static_cast<const QspmvArgs*>(args);
  const QspmmRows rows = FindQspmmRows(a.output, a.weights.rows, a.output.at_run ? io[3] : nullptr);
  RunItems<Bytes, Format>(QspmvEnds{a, rows}, io, begin, end);
}

}  // namespace

void QspmvDense(const void* args, void* const* io, int64_t begin, int64_t end, void* scratch);
void QspmvDense(const void* args, void* const* io, int64_t begin, int64_t end, void*) {
  RunQspmv<Dense<Bytes>>(args, io, begin, end);
}

void QspmvSell(const void* args, void* const* io, int64_t begin, int64_t end, void* scratch);
void QspmvSell(const void* args, void* const* io, int64_t begin, int64_t end, void*) {
  RunQspmv<Sell>(args, io, begin, end);
}

void QspmvBits(const void* args, void* const* io, int64_t begin, int64_t end, void* scratch);
void QspmvBits(const void* args, void* const* io, int64_t begin, int64_t end, void*) {
  RunQspmv<Bits<Bytes>>(args, io, begin, end);
}

}  // namespace SRT_ISA
}  // namespace sparsert
