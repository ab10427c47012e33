// spmv over Vec. Included once per instruction set, after its vec_*.h, with SRT_ISA defined.
#pragma once

#include <type_traits>

#include "base/arch.h"
#include "kernels/spmv/spmv.h"
#include "simd/vec_math.h"

namespace sparsert {
namespace SRT_ISA {
namespace {

inline Vec SellSlice(const PackedSlices& m, int slice, const float* x, Vec sum) {
  Vec odd = Zero();
  for (int block = 0; block < m.col_blocks; ++block) {
    const size_t at = static_cast<size_t>(block) * m.slices + slice;
    const uint32_t width = m.widths[at];
    const uint32_t whole = m.wholes[at];
    const uint16_t* id = m.ids + m.offsets[at] * Vec::kLanes;
    const float* w = m.values + m.offsets[at] * Vec::kLanes;
    const float* xb = x + block * kSpmvColBlock;
    uint32_t j = 0;
    for (; j + 2 <= whole; j += 2) {
      sum = Fma(LoadU(w), GatherU16(xb, id), sum);
      odd = Fma(LoadU(w + Vec::kLanes), GatherU16(xb, id + Vec::kLanes), odd);
      w += 2 * Vec::kLanes;
      id += 2 * Vec::kLanes;
    }
    // Padding leaves x out whatever it is: 0 * infinity would spoil rows that do not use it.
    for (; j < width; ++j) {
      const Vec weights = LoadU(w);
      sum = Fma(weights, Select(Equal(weights, Zero()), Zero(), GatherU16(xb, id)), sum);
      w += Vec::kLanes;
      id += Vec::kLanes;
    }
  }
  return Add(sum, odd);
}

inline Vec DenseSlice(const PackedSlices& m, int slice, const float* x, Vec sum) {
  const float* w = m.values + static_cast<size_t>(slice) * m.cols * Vec::kLanes;
  Vec acc[4] = {sum, Zero(), Zero(), Zero()};
  int k = 0;
  for (; k + 4 <= m.cols; k += 4) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      acc[i] = Fma(Set1(x[k + i]), LoadU(w + i * Vec::kLanes), acc[i]);
    }
    w += 4 * Vec::kLanes;
  }
  for (; k < m.cols; ++k, w += Vec::kLanes) acc[0] = Fma(Set1(x[k]), LoadU(w), acc[0]);
  return Add(Add(acc[0], acc[1]), Add(acc[2], acc[3]));
}

using SliceMask = std::conditional<(Vec::kLanes > 8), uint16_t, uint8_t>::type;
static_assert(sizeof(SliceMask) == SpmvMaskBytes(Vec::kLanes), "masks as packed");

inline int CountBits(uint32_t bits) {
  // Four lanes: a table in a register, for a population count may be a call.
  if (Vec::kLanes == 4) return static_cast<int>(0x4332322132212110u >> (4 * bits) & 15);
  return __builtin_popcount(bits);
}

// N successive slices: each has sums of its own, so that one's spreads run beside the other's.
template <int N>
SRT_INLINE void BitsSlices(const PackedSlices& m, int slice, const float* x, Vec (&sums)[N]) {
  const SliceMask* masks[N];
  const float* w[N];
  Vec odd[N];
#pragma GCC unroll 2
  for (int s = 0; s < N; ++s) {
    masks[s] =
        reinterpret_cast<const SliceMask*>(m.bits) + static_cast<int64_t>(slice + s) * m.cols;
    w[s] = m.values + m.offsets[slice + s];
    odd[s] = Zero();
  }
  int k = 0;
  for (; k + 2 <= m.cols; k += 2) {
    const Vec x0 = Set1(x[k]);
    const Vec x1 = Set1(x[k + 1]);
#pragma GCC unroll 2
    for (int s = 0; s < N; ++s) {
      const uint32_t first = masks[s][k];
      const uint32_t second = masks[s][k + 1];
      const int count = CountBits(first);
      sums[s] = Fma(Spread(w[s], first), x0, sums[s]);
      odd[s] = Fma(Spread(w[s] + count, second), x1, odd[s]);
      w[s] += count + CountBits(second);
    }
  }
#pragma GCC unroll 2
  for (int s = 0; s < N; ++s) {
    if (k < m.cols) sums[s] = Fma(Spread(w[s], masks[s][k]), Set1(x[k]), sums[s]);
    sums[s] = Add(sums[s], odd[s]);
  }
}

SRT_INLINE Vec BeginSlice(const PackedSlices& m, int slice) {
  return m.bias == nullptr ? Zero() : LoadU(m.bias + static_cast<size_t>(slice) * Vec::kLanes);
}

// Adds R, applies the activation and stores the rows of a slice.
SRT_INLINE void EndSlice(const SpmvArgs& a, int slice, const float* r, float* y, Vec sum) {
  const int first = slice * Vec::kLanes;
  const Mask rows = FirstN(a.weights.rows - first);
  if (r != nullptr) sum = Add(sum, LoadMask(r + first, rows));
  ApplyActivation(a.act, &sum, 1);
  StoreMask(y + first, rows, sum);
}

// The same where rows stand in any order. Inlined, it takes registers from the loop of gathers.
__attribute__((noinline)) void EndSortedSlice(const SpmvArgs& a, int slice, const float* r,
                                              float* y, Vec sum) {
  const PackedSlices& m = a.weights;
  const uint32_t* row_of = m.row_of + static_cast<size_t>(slice) * Vec::kLanes;
  float lane[Vec::kLanes];
  if (r != nullptr) {
    for (int l = 0; l < Vec::kLanes; ++l) {
      lane[l] = row_of[l] < static_cast<uint32_t>(m.rows) ? r[row_of[l]] : 0.0f;
    }
    sum = Add(sum, LoadU(lane));
  }
  ApplyActivation(a.act, &sum, 1);
  StoreU(lane, sum);
  for (int l = 0; l < Vec::kLanes; ++l) {
    if (row_of[l] < static_cast<uint32_t>(m.rows)) y[row_of[l]] = lane[l];
  }
}

template <SpmvFormat kFormat>
void RunSpmv(const void* args, void* const* io, int64_t begin, int64_t end) {
  const SpmvArgs& a = *static_cast<const SpmvArgs*>(args);
  const PackedSlices& m = a.weights;
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
        Vec sums[2] = {BeginSlice(m, slice), BeginSlice(m, slice + 1)};
        BitsSlices(m, slice, x, sums);
        EndSlice(a, slice, r, y, sums[0]);
        EndSlice(a, slice + 1, r, y, sums[1]);
      }
    }
    for (; slice < slice_end; ++slice) {
      Vec sums[1] = {BeginSlice(m, slice)};
      if constexpr (kFormat == SpmvFormat::kSell) {
        EndSortedSlice(a, slice, r, y, SellSlice(m, slice, x, sums[0]));
      } else if constexpr (kFormat == SpmvFormat::kBits) {
        BitsSlices(m, slice, x, sums);
        EndSlice(a, slice, r, y, sums[0]);
      } else {
        EndSlice(a, slice, r, y, DenseSlice(m, slice, x, sums[0]));
      }
    }
  }
}

}  // namespace

void SpmvDense(const void* args, void* const* io, int64_t begin, int64_t end, void* scratch);
void SpmvDense(const void* args, void* const* io, int64_t begin, int64_t end, void*) {
  RunSpmv<SpmvFormat::kDense>(args, io, begin, end);
}

void SpmvSell(const void* args, void* const* io, int64_t begin, int64_t end, void* scratch);
void SpmvSell(const void* args, void* const* io, int64_t begin, int64_t end, void*) {
  RunSpmv<SpmvFormat::kSell>(args, io, begin, end);
}

void SpmvBits(const void* args, void* const* io, int64_t begin, int64_t end, void* scratch);
void SpmvBits(const void* args, void* const* io, int64_t begin, int64_t end, void*) {
  RunSpmv<SpmvFormat::kBits>(args, io, begin, end);
}

}  // namespace SRT_ISA
}  // namespace sparsert
