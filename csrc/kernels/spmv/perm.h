// SpmvFormat::kPerm of floats. Include after generic.h and simd/perm_avx512.h.
#pragma once

#include "kernels/spmv/generic.h"
#include "kernels/spmv/walk_perm.h"

namespace sparsert {
namespace SRT_ISA {
namespace {

struct Perm {
  static constexpr bool kIsSorted = true;
  static constexpr bool kHasGroup = true;
  static constexpr int kSlices = 1;
  static constexpr int kVecs = 1;
  template <int N>
  static void Multiply(const PackedSlices& m, int slice, const float* const (&x)[N],
                       Vec (&sums)[1][N]) {
    if constexpr (N == 1) {
      if (!m.perm_pairs) {
        sums[0][0] = PermSlice<Floats>(m, slice, x[0], sums[0][0]);
        return;
      }
    }
    float wholes[N][kPermPairFloats];
    const float* whole[N];
    for (int v = 0; v < N; ++v) whole[v] = WholeStretch(x[v], m.cols, wholes[v]);
    PermGroup<Floats>(m, slice, whole, sums[0]);
  }
};

}  // namespace

void SpmvPerm(const void* args, void* const* io, int64_t begin, int64_t end, void* scratch);
void SpmvPerm(const void* args, void* const* io, int64_t begin, int64_t end, void*) {
  RunSpmv<Perm>(args, io, begin, end);
}

}  // namespace SRT_ISA
}  // namespace sparsert
