// The walk over slices of SpmvFormat::kBits, for any kind of product.
// Include after a vec_*.h, with SRT_ISA defined.
#pragma once

#include <type_traits>

#include "base/arch.h"
#include "kernels/spmv/spmv.h"

namespace sparsert {
namespace SRT_ISA {
namespace {

using SliceMask = std::conditional<(Vec::kLanes > 8), uint16_t, uint8_t>::type;
static_assert(sizeof(SliceMask) == SpmvMaskBytes(Vec::kLanes), "masks as packed");

inline int CountBits(uint32_t bits) {
  // Four lanes: a table in a register, for a population count may be a call.
  if (Vec::kLanes == 4) return static_cast<int>(0x4332322132212110u >> (4 * bits) & 15);
  return __builtin_popcount(bits);
}

// N successive slices: each has sums of its own, so that one's spreads run beside the other's; and
// two of them, the even columns' and the odd ones'. `broadcast` makes a vector of an element of x;
// `multiply` adds the product of a column's weights with it to a sum.
template <int N, typename Sum, typename Broadcast, typename Multiply>
SRT_INLINE void WalkBits(const PackedSlices& m, int slice, const float* x, Broadcast broadcast,
                         Multiply multiply, Sum (&even)[N], Sum (&odd)[N]) {
  const SliceMask* masks[N];
  const float* w[N];
#pragma GCC unroll 2
  for (int s = 0; s < N; ++s) {
    masks[s] =
        reinterpret_cast<const SliceMask*>(m.bits) + static_cast<int64_t>(slice + s) * m.cols;
    w[s] = m.values + m.offsets[slice + s];
  }
  int k = 0;
  for (; k + 2 <= m.cols; k += 2) {
    const auto x0 = broadcast(x + k);
    const auto x1 = broadcast(x + k + 1);
#pragma GCC unroll 2
    for (int s = 0; s < N; ++s) {
      const uint32_t first = masks[s][k];
      const uint32_t second = masks[s][k + 1];
      const int count = CountBits(first);
      even[s] = multiply(Spread(w[s], first), x0, even[s]);
      odd[s] = multiply(Spread(w[s] + count, second), x1, odd[s]);
      w[s] += count + CountBits(second);
    }
  }
  if (k == m.cols) return;
  const auto last = broadcast(x + k);
#pragma GCC unroll 2
  for (int s = 0; s < N; ++s) even[s] = multiply(Spread(w[s], masks[s][k]), last, even[s]);
}

}  // namespace
}  // namespace SRT_ISA
}  // namespace sparsert
