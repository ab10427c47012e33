// What items of slices and vectors go through, in any format and of any kind of elements (see
// walks.h). Include after a vec_*.h, with SRT_ISA defined.
//
// A format is a struct of
//   kIsSorted   rows stand in any order: see PackedSlices::row_of
//   kHasGroup   groups of vectors share weights
//   kSlices     slices that one vector goes through at a time
//   kVecs       vectors of rows in a slice
//   Multiply(m, slice, x[N], sums[S * kVecs][N])   adds the products of S slices and N vectors
//
// Ends are what becomes of the sums, with a vector of rows in the place of a slice: a struct of
//   a                        the arguments
//   Begin(slice)             what its sums begin with
//   End(slice, r, y, sum)    one vector's rows, which follow each other
//   EndSorted(slice, r, y, sums[N])
//   EndChunk(chunk, n, r, y)    of n vectors
#pragma once

#include "kernels/spmv/walks.h"

namespace sparsert {
namespace SRT_ISA {
namespace {

template <typename Kind>
struct Dense {
  static constexpr bool kIsSorted = false;
  static constexpr bool kHasGroup = true;
  static constexpr int kSlices = 1;
  static constexpr int kVecs = 1;
  template <int S, int N>
  static void Multiply(const PackedSlices& m, int slice, const float* const (&x)[N],
                       typename Kind::Sum (&sums)[S][N]) {
    if constexpr (N == 1) {
      sums[0][0] = DenseSlice<Kind>(m, slice, x[0], sums[0][0]);
    } else {
      DenseGroup<Kind>(m, slice, x, sums);
    }
  }
};

template <typename Kind>
struct Bits {
  static constexpr bool kIsSorted = false;
  static constexpr bool kHasGroup = true;
  static constexpr int kSlices = 2;
  static constexpr int kVecs = 1;
  template <int S, int N>
  static void Multiply(const PackedSlices& m, int slice, const float* const (&x)[N],
                       typename Kind::Sum (&sums)[S][N]) {
    if constexpr (N == 1) {
      BitsSlices<Kind>(m, slice, x[0], sums);
    } else {
      BitsGroup<Kind>(m, slice, x, sums);
    }
  }
};

template <typename Kind, typename Format, int S, int N, typename Ends>
SRT_INLINE void RunSlices(const Ends& ends, int slice, const float* const (&x)[N], const float* r,
                          float* y) {
  constexpr int kVecs = S * Format::kVecs;
  const int first = slice * Format::kVecs;
  typename Kind::Sum sums[kVecs][N];
#pragma GCC unroll 4
  for (int s = 0; s < kVecs; ++s) {
    const auto begin = ends.Begin(first + s);
#pragma GCC unroll 8
    for (int v = 0; v < N; ++v) sums[s][v] = begin;
  }
  Format::Multiply(ends.a.weights, slice, x, sums);
  for (int s = 0; s < kVecs; ++s) {
    if constexpr (Format::kIsSorted) {
      ends.EndSorted(first + s, r, y, sums[s]);
    } else {
      for (int v = 0; v < N; ++v) {
        ends.End(first + s, r == nullptr ? r : r + v * ends.a.r_row, y + v * ends.a.y_row,
                 sums[s][v]);
      }
    }
  }
}

// One chunk of slices and N vectors.
template <typename Kind, typename Format, int N, typename Ends>
SRT_INLINE void RunChunk(const Ends& ends, int64_t chunk, const float* x, const float* r,
                         float* y) {
  const float* xs[N];
  for (int v = 0; v < N; ++v) xs[v] = x + v * ends.a.x_row;
  const int64_t slices = ends.a.weights.slices;
  const int slice_end = static_cast<int>((chunk + 1) * slices / ends.a.chunks);
  int slice = static_cast<int>(chunk * slices / ends.a.chunks);
  constexpr int kSlices =
      N == 1 || Format::kIsSorted ? Format::kSlices : SlicesOfGroup<N, Kind::kRegisters>();
  if constexpr (kSlices > 1) {
    for (; slice + kSlices <= slice_end; slice += kSlices) {
      RunSlices<Kind, Format, kSlices>(ends, slice, xs, r, y);
    }
  }
  for (; slice < slice_end; ++slice) RunSlices<Kind, Format, 1>(ends, slice, xs, r, y);
  ends.EndChunk(chunk, N, r, y);
}

template <typename Kind, typename Format, typename Ends>
SRT_INLINE void RunItems(const Ends& ends, void* const* io, int64_t begin, int64_t end) {
  const auto& a = ends.a;
  for (int64_t item = begin; item < end; ++item) {
    const int64_t vector = item / a.chunks * a.group;
    const int64_t left = a.batch - vector;
    const float* x = static_cast<const float*>(io[0]) + vector * a.x_row;
    const float* r =
        io[1] == nullptr ? nullptr : static_cast<const float*>(io[1]) + vector * a.r_row;
    float* y = static_cast<float*>(io[2]) + vector * a.y_row;
    WithVectorCount<Format::kHasGroup>(
        static_cast<int>(left < a.group ? left : a.group),
        [&](auto count) { RunChunk<Kind, Format, count.value>(ends, item % a.chunks, x, r, y); });
  }
}

}  // namespace
}  // namespace SRT_ISA
}  // namespace sparsert
