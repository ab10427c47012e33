// Loads one vector of columns for one tap.
// Included once per instruction set, after its vec_*.h, with SRT_ISA defined.
#pragma once

#include "base/arch.h"
#include "kernels/spmm/taps.h"

namespace sparsert {
namespace SRT_ISA {

SRT_INLINE Vec LoadTap(const float* plane, const TapVec& tap, const TapTable& table) {
  switch (tap.mode) {
    case TapMode::kContiguous:
      return LoadMask(plane + tap.base, MaskFromBits(tap.mask));
    case TapMode::kStride2:
      return LoadStride2Mask(plane + tap.base, MaskFromBits(tap.mask));
    case TapMode::kSegments: {
      // Lanes outside a segment load as 0, so that the segments can be joined.
      Vec sum = Zero();
      const TapSegment* s = table.segments + tap.table;
      for (;; ++s) {
        const Mask mask = MaskFromBits(s->mask);
        const float* p = plane + s->base;
        sum = Or(sum, s->step == 1 ? LoadMask(p, mask) : LoadStride2Mask(p, mask));
        if (s->last) return sum;
      }
    }
    case TapMode::kGather:
      return GatherMask(plane, table.gather + tap.table, MaskFromBits(tap.mask));
    case TapMode::kPick:
      return LoadPicked(plane + tap.base, LoadPickIndex(table.gather + tap.table),
                        MaskFromBits(tap.mask));
    default:
      return Zero();
  }
}

}  // namespace SRT_ISA
}  // namespace sparsert
