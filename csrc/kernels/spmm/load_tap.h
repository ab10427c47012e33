// Loads one vector of columns for one tap.
// Included once per instruction set, after its vec_*.h, with SRT_ISA defined.
#pragma once

#include "kernels/arch.h"
#include "kernels/spmm/taps.h"

namespace sparsert {
namespace SRT_ISA {

SRT_INLINE Vec LoadTap(const float* plane, const TapVec& tap,
                       const int32_t* gather) {
  switch (tap.mode) {
    case TapMode::kContiguous:
      return LoadMask(plane + tap.base, MaskFromBits(tap.mask));
    case TapMode::kStride2:
      return LoadStride2Mask(plane + tap.base, MaskFromBits(tap.mask));
    case TapMode::kGather:
      return GatherMask(plane, gather + tap.base, MaskFromBits(tap.mask));
    default:
      return Zero();
  }
}

}  // namespace SRT_ISA
}  // namespace sparsert
