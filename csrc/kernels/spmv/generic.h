// spmv over Vec. Included once per instruction set, after its vec_*.h, with SRT_ISA defined.
#pragma once

#include "base/arch.h"
#include "kernels/spmv/spmv.h"
#include "kernels/spmv/vector_group.h"
#include "kernels/spmv/walk_bits.h"
#include "simd/vec_math.h"

namespace sparsert {
namespace SRT_ISA {
namespace {

// How blocks of so many rows lie in vectors.
template <int kRows>
struct Blocks {
  static constexpr int kParts = kRows < Vec::kLanes ? Vec::kLanes / kRows : 1;  // of a vector
  static constexpr int kVecs = kRows > Vec::kLanes ? kRows / Vec::kLanes : 1;   // of a slice
  static constexpr int kUnroll = kParts == 1 && kVecs == 1 ? 4 : 2;             // columns
};

template <int kRows, int kVecs>
SRT_INLINE void SellSlice(const PackedSlices& m, int slice, const float* x, Vec (&sums)[kVecs]) {
  constexpr int kParts = Blocks<kRows>::kParts;
  constexpr int kUnroll = Blocks<kRows>::kUnroll;
  constexpr int kLanes = kVecs * Vec::kLanes;
  Vec acc[kUnroll][kVecs];
#pragma GCC unroll 4
  for (int u = 0; u < kUnroll; ++u) {
#pragma GCC unroll 4
    for (int v = 0; v < kVecs; ++v) acc[u][v] = u == 0 ? sums[v] : Zero();
  }
  for (int block = 0; block < m.col_blocks; ++block) {
    const size_t at = static_cast<size_t>(block) * m.slices + slice;
    const uint32_t width = m.widths[at];
    const uint32_t whole = m.wholes[at];
    const uint16_t* id = m.ids + m.offsets[at] * kParts;
    const float* w = m.values + m.offsets[at] * kLanes;
    const float* xb = x + block * kSpmvColBlock;
    uint32_t j = 0;
    for (; j + kUnroll <= whole; j += kUnroll) {
#pragma GCC unroll 4
      for (int u = 0; u < kUnroll; ++u) {
        const Vec xs = SetParts<kParts>(xb, id + u * kParts);
#pragma GCC unroll 4
        for (int v = 0; v < kVecs; ++v) {
          acc[u][v] = Fma(LoadU(w + u * kLanes + v * Vec::kLanes), xs, acc[u][v]);
        }
      }
      w += kUnroll * kLanes;
      id += kUnroll * kParts;
    }
    // Padding leaves x out whatever it is: 0 * infinity would spoil rows that do not use it.
    for (; j < width; ++j) {
      const Vec xs = SetParts<kParts>(xb, id);
#pragma GCC unroll 4
      for (int v = 0; v < kVecs; ++v) {
        const Vec weights = LoadU(w + v * Vec::kLanes);
        acc[0][v] = Fma(weights, Select(Equal(weights, Zero()), Zero(), xs), acc[0][v]);
      }
      w += kLanes;
      id += kParts;
    }
  }
#pragma GCC unroll 4
  for (int v = 0; v < kVecs; ++v) {
    sums[v] = Add(acc[0][v], acc[1][v]);
    if constexpr (kUnroll == 4) sums[v] = Add(sums[v], Add(acc[2][v], acc[3][v]));
  }
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

template <int N>
SRT_INLINE void BitsSlices(const PackedSlices& m, int slice, const float* x, Vec (&sums)[N]) {
  Vec odd[N];
#pragma GCC unroll 2
  for (int s = 0; s < N; ++s) odd[s] = Zero();
  WalkBits(
      m, slice, x, [](const float* p) { return Set1(*p); },
      [](Vec weights, Vec xs, Vec acc) { return Fma(weights, xs, acc); }, sums, odd);
#pragma GCC unroll 2
  for (int s = 0; s < N; ++s) sums[s] = Add(sums[s], odd[s]);
}

inline Vec BitsSlice(const PackedSlices& m, int slice, const float* x, Vec sum) {
  Vec sums[1] = {sum};
  BitsSlices(m, slice, x, sums);
  return sums[0];
}

SRT_INLINE Vec BeginSlice(const PackedSlices& m, int slice) {
  return m.bias == nullptr ? Zero() : LoadU(m.bias + static_cast<size_t>(slice) * Vec::kLanes);
}

// What the sums of S successive slices and N vectors start from.
template <int S, int N>
SRT_INLINE void BeginGroup(const PackedSlices& m, int slice, Vec (&sums)[S][N]) {
#pragma GCC unroll 4
  for (int s = 0; s < S; ++s) {
    const Vec begin = BeginSlice(m, slice + s);
#pragma GCC unroll 8
    for (int v = 0; v < N; ++v) sums[s][v] = begin;
  }
}

template <int S, int N>
SRT_INLINE void MultiplyGroup(const Vec (&weights)[S], const float* const (&x)[N], int64_t k,
                              Vec (&sums)[S][N]) {
#pragma GCC unroll 8
  for (int v = 0; v < N; ++v) {
    const Vec xs = Set1(x[v][k]);
#pragma GCC unroll 4
    for (int s = 0; s < S; ++s) sums[s][v] = Fma(weights[s], xs, sums[s][v]);
  }
}

// Fewer vectors wait for memory, which dense weights of most layers come from.
constexpr int kFetchVectors = 6;

template <int S, int N>
SRT_INLINE void DenseGroup(const PackedSlices& m, int slice, const float* const (&x)[N],
                           Vec (&sums)[S][N]) {
  const int64_t apart = static_cast<int64_t>(m.cols) * Vec::kLanes;
  const float* w = m.values + slice * apart;
  for (int64_t k = 0; k < m.cols; ++k, w += Vec::kLanes) {
    Vec weights[S];
#pragma GCC unroll 4
    for (int s = 0; s < S; ++s) {
      if constexpr (N >= kFetchVectors) FetchWeights<Vec::kLanes>(w + s * apart);
      weights[s] = LoadU(w + s * apart);
    }
    MultiplyGroup(weights, x, k, sums);
  }
}

template <int S, int N>
SRT_INLINE void BitsGroup(const PackedSlices& m, int slice, const float* const (&x)[N],
                          Vec (&sums)[S][N]) {
  const SliceMask* masks[S];
  const float* w[S];
#pragma GCC unroll 4
  for (int s = 0; s < S; ++s) {
    masks[s] =
        reinterpret_cast<const SliceMask*>(m.bits) + static_cast<int64_t>(slice + s) * m.cols;
    w[s] = m.values + m.offsets[slice + s];
  }
  for (int64_t k = 0; k < m.cols; ++k) {
    Vec weights[S];
#pragma GCC unroll 4
    for (int s = 0; s < S; ++s) {
      const uint32_t mask = masks[s][k];
      weights[s] = Spread(w[s], mask);
      w[s] += CountBits(mask);
    }
    MultiplyGroup(weights, x, k, sums);
  }
}

// Of formats that RunSpmv handles itself.
inline Vec NoSlice(const PackedSlices&, int, const float*, Vec sum) { return sum; }

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

// See perm.h.
template <int N>
SRT_INLINE void PermGroup(const PackedSlices& m, int slice, const float* const (&x)[N],
                          Vec (&sums)[N]);

// S successive slices of a group of N vectors.
template <SpmvFormat kFormat, int S, int N>
SRT_INLINE void RunGroupSlices(const SpmvArgs& a, int slice, const float* const (&x)[N],
                               const float* r, float* y) {
  Vec sums[S][N];
  BeginGroup(a.weights, slice, sums);
  if constexpr (kFormat == SpmvFormat::kDense) DenseGroup(a.weights, slice, x, sums);
  if constexpr (kFormat == SpmvFormat::kBits) BitsGroup(a.weights, slice, x, sums);
  if constexpr (kFormat == SpmvFormat::kPerm) PermGroup(a.weights, slice, x, sums[0]);
  for (int s = 0; s < S; ++s) {
    for (int v = 0; v < N; ++v) {
      const float* rv = r == nullptr ? r : r + v * a.r_row;
      if constexpr (kFormat == SpmvFormat::kPerm) {
        EndSortedSlice(a, slice + s, rv, y + v * a.y_row, sums[s][v]);
      } else {
        EndSlice(a, slice + s, rv, y + v * a.y_row, sums[s][v]);
      }
    }
  }
}

template <SpmvFormat kFormat, int N>
SRT_INLINE void RunGroup(const SpmvArgs& a, int slice, int slice_end, const float* x,
                         const float* r, float* y) {
  const float* xs[N];
  for (int v = 0; v < N; ++v) xs[v] = x + v * a.x_row;
  constexpr int kSlices = kFormat == SpmvFormat::kPerm ? 1 : SlicesOfGroup<N>();
  if constexpr (kSlices > 1) {
    for (; slice + kSlices <= slice_end; slice += kSlices) {
      RunGroupSlices<kFormat, kSlices>(a, slice, xs, r, y);
    }
  }
  for (; slice < slice_end; ++slice) RunGroupSlices<kFormat, 1>(a, slice, xs, r, y);
}

// `slice_sums` adds the products of one slice of one vector to its sums; formats that store columns
// have no use for it.
template <SpmvFormat kFormat, typename SliceSums>
void RunSpmv(const void* args, void* const* io, int64_t begin, int64_t end, SliceSums slice_sums) {
  const SpmvArgs& a = *static_cast<const SpmvArgs*>(args);
  const PackedSlices& m = a.weights;
  for (int64_t item = begin; item < end; ++item) {
    const int64_t vector = item / a.chunks * a.group;
    const int64_t chunk = item % a.chunks;
    const float* x = static_cast<const float*>(io[0]) + vector * a.x_row;
    const float* r =
        io[1] == nullptr ? nullptr : static_cast<const float*>(io[1]) + vector * a.r_row;
    float* y = static_cast<float*>(io[2]) + vector * a.y_row;
    const int slice_end = static_cast<int>((chunk + 1) * m.slices / a.chunks);
    int slice = static_cast<int>(chunk * m.slices / a.chunks);
    if constexpr (kHasGroups && SpmvShares(kFormat)) {
      if (a.group > 1) {
        const int64_t left = a.batch - vector;
        WithVectorCount<true>(static_cast<int>(left < a.group ? left : a.group), [&](auto count) {
          RunGroup<kFormat, count.value>(a, slice, slice_end, x, r, y);
        });
        continue;
      }
    }
    if constexpr (kFormat == SpmvFormat::kBits) {
      for (; slice + 2 <= slice_end; slice += 2) {
        Vec sums[2] = {BeginSlice(m, slice), BeginSlice(m, slice + 1)};
        BitsSlices(m, slice, x, sums);
        EndSlice(a, slice, r, y, sums[0]);
        EndSlice(a, slice + 1, r, y, sums[1]);
      }
    }
    constexpr int kBlock = SpmvBlockRows(kFormat);
    for (; slice < slice_end; ++slice) {
      if constexpr (kBlock != 0) {
        constexpr int kVecs = Blocks<kBlock>::kVecs;
        Vec sums[kVecs];
        for (int v = 0; v < kVecs; ++v) sums[v] = BeginSlice(m, slice * kVecs + v);
        SellSlice<kBlock>(m, slice, x, sums);
        if constexpr (Blocks<kBlock>::kParts > 1) {
          EndSortedSlice(a, slice, r, y, sums[0]);
        } else {
          for (int v = 0; v < kVecs; ++v) EndSlice(a, slice * kVecs + v, r, y, sums[v]);
        }
        continue;
      }
      const Vec sums = slice_sums(m, slice, x, BeginSlice(m, slice));
      if constexpr (kFormat == SpmvFormat::kPerm) {
        EndSortedSlice(a, slice, r, y, sums);
      } else {
        EndSlice(a, slice, r, y, sums);
      }
    }
  }
}

}  // namespace

void SpmvDense(const void* args, void* const* io, int64_t begin, int64_t end, void* scratch);
void SpmvDense(const void* args, void* const* io, int64_t begin, int64_t end, void*) {
  RunSpmv<SpmvFormat::kDense>(args, io, begin, end, DenseSlice);
}

void SpmvSell(const void* args, void* const* io, int64_t begin, int64_t end, void* scratch);
void SpmvSell(const void* args, void* const* io, int64_t begin, int64_t end, void*) {
  RunSpmv<SpmvFormat::kSell>(args, io, begin, end, NoSlice);
}

void SpmvBits(const void* args, void* const* io, int64_t begin, int64_t end, void* scratch);
void SpmvBits(const void* args, void* const* io, int64_t begin, int64_t end, void*) {
  RunSpmv<SpmvFormat::kBits>(args, io, begin, end, BitsSlice);
}

void SpmvBsr4(const void* args, void* const* io, int64_t begin, int64_t end, void* scratch);
void SpmvBsr4(const void* args, void* const* io, int64_t begin, int64_t end, void*) {
  RunSpmv<SpmvFormat::kBsr4>(args, io, begin, end, NoSlice);
}

void SpmvBsr8(const void* args, void* const* io, int64_t begin, int64_t end, void* scratch);
void SpmvBsr8(const void* args, void* const* io, int64_t begin, int64_t end, void*) {
  RunSpmv<SpmvFormat::kBsr8>(args, io, begin, end, NoSlice);
}

void SpmvBsr16(const void* args, void* const* io, int64_t begin, int64_t end, void* scratch);
void SpmvBsr16(const void* args, void* const* io, int64_t begin, int64_t end, void*) {
  RunSpmv<SpmvFormat::kBsr16>(args, io, begin, end, NoSlice);
}

}  // namespace SRT_ISA
}  // namespace sparsert
