// Elementwise over four channels at a time, whose bytes may not have been stored yet.
// Included once per instruction set, after its vec_*.h and dot_*.h, with SRT_ISA defined.
#pragma once

#include "kernels/define.h"
#include "kernels/quantize/quantize.h"
#include "simd/vec_math.h"

namespace sparsert {
namespace SRT_ISA {

SRT_INLINE Vec Clamp(Vec a, Vec low, Vec high) { return Min(Max(a, low), high); }

struct ElementwiseEnd {
  const QuantizeArgs* args;
  Vec scale;
  CentredByte r_byte[4];
  Vec r_scale;
  Vec factor;
  Vec low, high;  // less the zero point
  ByteRange range;
};

SRT_INLINE ElementwiseEnd MakeElementwiseEnd(const QuantizeArgs& a) {
  ElementwiseEnd end;
  end.args = &a;
  end.scale = Set1(a.scale);
  for (int k = 0; k < 4; ++k) end.r_byte[k] = MakeCentredByte(k, a.b_zero);
  end.r_scale = Set1(a.b_scale);
  end.factor = Set1(a.y_factor);
  end.low = Set1(static_cast<float>(a.low - a.zero));
  end.high = Set1(static_cast<float>(a.high - a.zero));
  end.range = MakeByteRange(a.zero, a.low, a.high);
  return end;
}

// The biases of `channels` channels, or zeros.
SRT_INLINE void LoadShifts(const float* bias, int channels, Vec (&shift)[4]) {
  for (int k = 0; k < 4; ++k) {
    shift[k] = bias != nullptr && k < channels ? Set1(bias[k]) : Zero();
  }
}

// Whether no function but a coarse one takes part.
SRT_INLINE bool IsPlainElementwise(const QuantizeArgs& a) {
  return a.is_coarse || a.act.fn == UnaryFn::kNone;
}

// `z`: bytes less their zero point. `r` (nullptr: none) and `y` are packed bytes, or floats with
// planes of `channels` channels. kPlain: IsPlainElementwise; z stays in registers then.
template <bool kPlain>
SRT_INLINE void EndElementwise(const ElementwiseEnd& end, Vec (&z)[4], const Vec (&shift)[4],
                               int channels, const float* r, int64_t r_plane, Mask tail, float* y,
                               int64_t y_plane) {
  const QuantizeArgs& a = *end.args;
#pragma GCC unroll 4
  for (int k = 0; k < 4; ++k) z[k] = Add(Mul(z[k], end.scale), shift[k]);
  if (r != nullptr && a.r_is_float) {
#pragma GCC unroll 4
    for (int k = 0; k < 4; ++k) {
      if (k < channels) z[k] = Add(z[k], LoadMask(r + k * r_plane, tail));
    }
  } else if (r != nullptr) {
    const Vec bytes = LoadMask(r, tail);
#pragma GCC unroll 4
    for (int k = 0; k < 4; ++k) {
      z[k] = Add(z[k], Mul(Centre(bytes, end.r_byte[k]), end.r_scale));
    }
  }
  if (a.is_coarse) {
    const auto* tail_of_gelu = a.act.fn == UnaryFn::kGelu ? &kGeluTail : &kGeluTanhTail;
    // Keeps the compiler from loading coefficients before a loop that has no registers for them.
    __asm__("" : "+r"(tail_of_gelu));
#pragma GCC unroll 4
    for (Vec& value : z) value = CoarseGelu(value, *tail_of_gelu);
  } else if (!kPlain && a.act.fn != UnaryFn::kNone) {
    ApplyActivation(a.act, z, 4);
  }
  if (a.y_is_float) {
#pragma GCC unroll 4
    for (int k = 0; k < 4; ++k) {
      if (k < channels) StoreMask(y + k * y_plane, tail, z[k]);
    }
  } else {
#pragma GCC unroll 4
    for (Vec& value : z) value = Clamp(Mul(value, end.factor), end.low, end.high);
    StoreMask(y, tail, RoundToBytes(z[0], z[1], z[2], z[3], end.range));
  }
}

}  // namespace SRT_ISA
}  // namespace sparsert
