// How products with slices of weights are made, of any kind of elements: floats (spmv) or groups of
// four bytes (qspmv). Include after a vec_*.h, with SRT_ISA defined.
//
// A kind is a struct of
//   Weights, Elements          a vector of weights; of elements of x
//   Sum, None()                one number a row of a slice, and those of no product
//   ToWeights(), ToElements()  of a Vec that holds their bits
//   Multiply(w, x, sum)        sum + w * x
//   Add(a, b)
//   kRegisters                 vector registers of Elements
//   kFetchVectors              groups of as many vectors and more ask for dense weights ahead of
//   time kMayBeInfinite             0 * x need not be 0
//
// ...Slice, ...Slices: with one vector x. ...Group: S slices with N vectors, whose sums begin as
// they are: each weight is read once for all.
#pragma once

#include <type_traits>

#include "base/arch.h"
#include "kernels/spmv/spmv.h"
#include "kernels/spmv/vector_group.h"

namespace sparsert {
namespace SRT_ISA {
namespace {

template <typename Kind>
SRT_INLINE typename Kind::Weights LoadWeightsOf(const float* w) {
  return Kind::ToWeights(LoadU(w));
}
// The element at x, for all rows.
template <typename Kind>
SRT_INLINE typename Kind::Elements Broadcast(const float* x) {
  return Kind::ToElements(Set1(*x));
}

// ---- dense: each column of a slice

template <typename Kind>
inline typename Kind::Sum DenseSlice(const PackedSlices& m, int slice, const float* x,
                                     typename Kind::Sum sum) {
  const float* w = m.values + static_cast<size_t>(slice) * m.cols * Vec::kLanes;
  typename Kind::Sum acc[4] = {sum, Kind::None(), Kind::None(), Kind::None()};
  int k = 0;
  for (; k + 4 <= m.cols; k += 4) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      acc[i] = Kind::Multiply(LoadWeightsOf<Kind>(w + i * Vec::kLanes), Broadcast<Kind>(x + k + i),
                              acc[i]);
    }
    w += 4 * Vec::kLanes;
  }
  for (; k < m.cols; ++k, w += Vec::kLanes) {
    acc[0] = Kind::Multiply(LoadWeightsOf<Kind>(w), Broadcast<Kind>(x + k), acc[0]);
  }
  return Kind::Add(Kind::Add(acc[0], acc[1]), Kind::Add(acc[2], acc[3]));
}

// Column k of S slices and N vectors.
template <typename Kind, int S, int N>
SRT_INLINE void MultiplyColumn(const typename Kind::Weights (&weights)[S],
                               const float* const (&x)[N], int64_t k,
                               typename Kind::Sum (&sums)[S][N]) {
#pragma GCC unroll 8
  for (int v = 0; v < N; ++v) {
    const auto xs = Broadcast<Kind>(x[v] + k);
#pragma GCC unroll 4
    for (int s = 0; s < S; ++s) sums[s][v] = Kind::Multiply(weights[s], xs, sums[s][v]);
  }
}

template <typename Kind, int S, int N>
SRT_INLINE void DenseGroup(const PackedSlices& m, int slice, const float* const (&x)[N],
                           typename Kind::Sum (&sums)[S][N]) {
  const int64_t apart = static_cast<int64_t>(m.cols) * Vec::kLanes;
  const float* w = m.values + slice * apart;
  for (int64_t k = 0; k < m.cols; ++k, w += Vec::kLanes) {
    typename Kind::Weights weights[S];
#pragma GCC unroll 4
    for (int s = 0; s < S; ++s) {
      if constexpr (N >= Kind::kFetchVectors) FetchWeights<Vec::kLanes>(w + s * apart);
      weights[s] = LoadWeightsOf<Kind>(w + s * apart);
    }
    MultiplyColumn<Kind>(weights, x, k, sums);
  }
}

// ---- bits: each column of a slice, its non-zeros spread to the lanes whose bits are set

using SliceMask = std::conditional<(Vec::kLanes > 8), uint16_t, uint8_t>::type;
static_assert(sizeof(SliceMask) == SpmvMaskBytes(Vec::kLanes), "masks as packed");

inline int CountBits(uint32_t bits) {
  // Four lanes: a table in a register, for a population count may be a call.
  if (Vec::kLanes == 4) return static_cast<int>(0x4332322132212110u >> (4 * bits) & 15);
  return __builtin_popcount(bits);
}

// Where S successive slices' masks and non-zeros are.
template <int S>
struct SliceBits {
  const SliceMask* masks[S];
  const float* w[S];
};
template <int S>
SRT_INLINE SliceBits<S> FindBits(const PackedSlices& m, int slice) {
  SliceBits<S> at;
#pragma GCC unroll 4
  for (int s = 0; s < S; ++s) {
    at.masks[s] =
        reinterpret_cast<const SliceMask*>(m.bits) + static_cast<int64_t>(slice + s) * m.cols;
    at.w[s] = m.values + m.offsets[slice + s];
  }
  return at;
}

// S successive slices: each has sums of its own, so that one's spreads run beside the other's; and
// two of them, the even columns' and the odd ones'.
template <typename Kind, int S>
SRT_INLINE void BitsSlices(const PackedSlices& m, int slice, const float* x,
                           typename Kind::Sum (&sums)[S][1]) {
  SliceBits<S> at = FindBits<S>(m, slice);
  typename Kind::Sum even[S];
  typename Kind::Sum odd[S];
#pragma GCC unroll 2
  for (int s = 0; s < S; ++s) {
    even[s] = sums[s][0];
    odd[s] = Kind::None();
  }
  int k = 0;
  for (; k + 2 <= m.cols; k += 2) {
    const auto x0 = Broadcast<Kind>(x + k);
    const auto x1 = Broadcast<Kind>(x + k + 1);
#pragma GCC unroll 2
    for (int s = 0; s < S; ++s) {
      const uint32_t first = at.masks[s][k];
      const uint32_t second = at.masks[s][k + 1];
      const int count = CountBits(first);
      even[s] = Kind::Multiply(Kind::ToWeights(Spread(at.w[s], first)), x0, even[s]);
      odd[s] = Kind::Multiply(Kind::ToWeights(Spread(at.w[s] + count, second)), x1, odd[s]);
      at.w[s] += count + CountBits(second);
    }
  }
  if (k < m.cols) {
    const auto last = Broadcast<Kind>(x + k);
#pragma GCC unroll 2
    for (int s = 0; s < S; ++s) {
      even[s] = Kind::Multiply(Kind::ToWeights(Spread(at.w[s], at.masks[s][k])), last, even[s]);
    }
  }
#pragma GCC unroll 2
  for (int s = 0; s < S; ++s) sums[s][0] = Kind::Add(even[s], odd[s]);
}

template <typename Kind, int S, int N>
SRT_INLINE void BitsGroup(const PackedSlices& m, int slice, const float* const (&x)[N],
                          typename Kind::Sum (&sums)[S][N]) {
  SliceBits<S> at = FindBits<S>(m, slice);
  for (int64_t k = 0; k < m.cols; ++k) {
    typename Kind::Weights weights[S];
#pragma GCC unroll 4
    for (int s = 0; s < S; ++s) {
      const uint32_t mask = at.masks[s][k];
      weights[s] = Kind::ToWeights(Spread(at.w[s], mask));
      at.w[s] += CountBits(mask);
    }
    MultiplyColumn<Kind>(weights, x, k, sums);
  }
}

}  // namespace
}  // namespace SRT_ISA
}  // namespace sparsert
