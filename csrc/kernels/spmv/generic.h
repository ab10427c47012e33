// spmv over Vec. Included once per instruction set, after its vec_*.h, with SRT_ISA defined.
#pragma once

#include "base/arch.h"
#include "kernels/spmv/run_slices.h"
#include "kernels/spmv/spmv.h"
#include "simd/vec_math.h"

namespace sparsert {
namespace SRT_ISA {
namespace {

// See walks.h.
struct Floats {
  using Weights = Vec;
  using Elements = Vec;
  using Sum = Vec;
  static constexpr int kRegisters = 1;
  // Fewer vectors wait for memory, which dense weights of most layers come from.
  static constexpr int kFetchVectors = 6;
  static constexpr bool kMayBeInfinite = true;
  static Vec None() { return Zero(); }
  static Vec ToWeights(Vec w) { return w; }
  static Vec ToElements(Vec x) { return x; }
  static Vec Multiply(Vec w, Vec x, Vec sum) { return Fma(w, x, sum); }
  static Vec Add(Vec a, Vec b) { return SRT_ISA::Add(a, b); }
};

// How blocks of so many rows lie in vectors.
template <int kRows>
struct Blocks {
  static constexpr int kParts = kRows < Vec::kLanes ? Vec::kLanes / kRows : 1;  // of a vector
  static constexpr int kVecs = kRows > Vec::kLanes ? kRows / Vec::kLanes : 1;   // of a slice
  static constexpr int kUnroll = kParts == 1 && kVecs == 1 ? 4 : 2;             // columns
};

template <int kRows, int kVecs>
SRT_INLINE void SellSlice(const PackedSlices& m, int slice, const float* x, Vec (&sums)[kVecs][1]) {
  constexpr int kParts = Blocks<kRows>::kParts;
  constexpr int kUnroll = Blocks<kRows>::kUnroll;
  constexpr int kLanes = kVecs * Vec::kLanes;
  Vec acc[kUnroll][kVecs];
#pragma GCC unroll 4
  for (int u = 0; u < kUnroll; ++u) {
#pragma GCC unroll 4
    for (int v = 0; v < kVecs; ++v) acc[u][v] = u == 0 ? sums[v][0] : Zero();
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
    sums[v][0] = Add(acc[0][v], acc[1][v]);
    if constexpr (kUnroll == 4) sums[v][0] = Add(sums[v][0], Add(acc[2][v], acc[3][v]));
  }
}

template <int kRows>
struct Sell {
  static constexpr bool kIsSorted = Blocks<kRows>::kParts > 1;
  static constexpr bool kHasGroup = false;
  static constexpr int kSlices = 1;
  static constexpr int kVecs = Blocks<kRows>::kVecs;
  template <int V>
  static void Multiply(const PackedSlices& m, int slice, const float* const (&x)[1],
                       Vec (&sums)[V][1]) {
    SellSlice<kRows>(m, slice, x[0], sums);
  }
};

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

// See run_slices.h.
struct SpmvEnds {
  const SpmvArgs& a;
  Vec Begin(int slice) const {
    const float* bias = a.weights.bias;
    return bias == nullptr ? Zero() : LoadU(bias + static_cast<size_t>(slice) * Vec::kLanes);
  }
  void End(int slice, const float* r, float* y, Vec sum) const { EndSlice(a, slice, r, y, sum); }
  template <int N>
  void EndSorted(int slice, const float* r, float* y, const Vec (&sums)[N]) const {
    for (int v = 0; v < N; ++v) {
      EndSortedSlice(a, slice, r == nullptr ? r : r + v * a.r_row, y + v * a.y_row, sums[v]);
    }
  }
  void EndChunk(int64_t, int, const float*, float*) const {}
};

template <typename Format>
void RunSpmv(const void* args, void* const* io, int64_t begin, int64_t end) {
  RunItems<Floats, Format>(SpmvEnds{*static_cast<const SpmvArgs*>(args)}, io, begin, end);
}

}  // namespace

void SpmvDense(const void* args, void* const* io, int64_t begin, int64_t end, void* scratch);
void SpmvDense(const void* args, void* const* io, int64_t begin, int64_t end, void*) {
  RunSpmv<Dense<Floats>>(args, io, begin, end);
}

void SpmvSell(const void* args, void* const* io, int64_t begin, int64_t end, void* scratch);
void SpmvSell(const void* args, void* const* io, int64_t begin, int64_t end, void*) {
  RunSpmv<Sell<1>>(args, io, begin, end);
}

void SpmvBits(const void* args, void* const* io, int64_t begin, int64_t end, void* scratch);
void SpmvBits(const void* args, void* const* io, int64_t begin, int64_t end, void*) {
  RunSpmv<Bits<Floats>>(args, io, begin, end);
}

void SpmvBsr4(const void* args, void* const* io, int64_t begin, int64_t end, void* scratch);
void SpmvBsr4(const void* args, void* const* io, int64_t begin, int64_t end, void*) {
  RunSpmv<Sell<4>>(args, io, begin, end);
}

void SpmvBsr8(const void* args, void* const* io, int64_t begin, int64_t end, void* scratch);
void SpmvBsr8(const void* args, void* const* io, int64_t begin, int64_t end, void*) {
  RunSpmv<Sell<8>>(args, io, begin, end);
}

void SpmvBsr16(const void* args, void* const* io, int64_t begin, int64_t end, void* scratch);
void SpmvBsr16(const void* args, void* const* io, int64_t begin, int64_t end, void*) {
  RunSpmv<Sell<16>>(args, io, begin, end);
}

}  // namespace SRT_ISA
}  // namespace sparsert
