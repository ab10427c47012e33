// What an instruction set has no better way for than the rest of its dot_*.h, which includes this.
#pragma once

#include "base/arch.h"

namespace sparsert {
namespace SRT_ISA {

// z plus a byte of each lane, whose zero point is 0, times `scale`. Whether that is faster than
// with Centre().
struct ScaledByte {
  CentredByte byte;
  Vec scale;
};
SRT_INLINE ScaledByte MakeScaledByte(int n, float scale) {
  return {MakeCentredByte(n, 0), Set1(scale)};
}
SRT_INLINE Vec AddScaledByte(Vec z, Vec bytes, const ScaledByte& b) {
  return Add(z, Mul(Centre(bytes, b.byte), b.scale));
}
constexpr bool kScalesBytesFaster = false;

// Products of the lower half of the lanes. Whether they take less time than whole ones.
SRT_INLINE ByteVec LoadHalfBytes(const float* p) { return LoadBytes(p); }
SRT_INLINE IntVec DotHalf(ByteVec x, ByteWeights w, IntVec acc) { return Dot(x, w, acc); }
constexpr bool kHasHalfDots = false;

}  // namespace SRT_ISA
}  // namespace sparsert
