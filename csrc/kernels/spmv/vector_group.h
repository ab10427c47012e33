// Several vectors that meet each weight of a product while it is in a register.
// Include after a vec_*.h, with SRT_ISA defined.
#pragma once

#include <type_traits>

#include "base/arch.h"
#include "kernels/spmv/spmv.h"

namespace sparsert {
namespace SRT_ISA {
namespace {

// Elsewhere groups are of one vector: see SpmvGroup().
constexpr bool kHasGroups = Vec::kLanes >= 8;

template <int N>
using VectorCount = std::integral_constant<int, N>;

// Calls `run` with the number of vectors as a constant.
template <bool kGroups, typename Run>
SRT_INLINE void WithVectorCount(int count, Run run) {
  if constexpr (kGroups && kHasGroups) {
    switch (count) {
      case 2:
        return run(VectorCount<2>());
      case 3:
        return run(VectorCount<3>());
      case 4:
        return run(VectorCount<4>());
      case 5:
        return run(VectorCount<5>());
      case 6:
        return run(VectorCount<6>());
      case 7:
        return run(VectorCount<7>());
      case 8:
        return run(VectorCount<8>());
      default:
        break;
    }
  }
  run(VectorCount<1>());
}

// Asks for weights that are read later: hardware stops at the end of a page, and a group of vectors
// does not read the next one soon enough to hide that.
constexpr int kFetchAhead = 1024;
template <int kFloats>
SRT_INLINE void FetchWeights(const float* w) {
#pragma GCC unroll 8
  for (int i = 0; i < kFloats; i += 16) __builtin_prefetch(w + kFetchAhead + i);
}

// Slices that share the broadcast elements of N vectors: as many sums as stay in registers beside
// weights of `kRegisters` a vector.
template <int N, int kRegisters = 1>
constexpr int SlicesOfGroup() {
  constexpr int kSums = Vec::kRegisters >= 32 ? 24 : kRegisters == 1 ? 10 : 8;
  return kSums / N >= 4 ? 4 : kSums / N >= 2 ? 2 : 1;
}

}  // namespace
}  // namespace SRT_ISA
}  // namespace sparsert
