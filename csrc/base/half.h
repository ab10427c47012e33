// IEEE half precision (f16) to and from float, for machines of every kind.
#pragma once

#include <cstdint>
#include <cstring>

#include "base/arch.h"

namespace sparsert {

SRT_INLINE float HalfToFloat(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
  const uint32_t magnitude = half & 0x7fffu;
  uint32_t bits;
  if (magnitude >= 0x7c00u) {  // infinity and NaN
    bits = 0x7f800000u | (magnitude & 0x3ffu) << 13;
  } else if (magnitude >= 0x0400u) {
    bits = (magnitude << 13) + ((127u - 15u) << 23);
  } else {  // zero and denormals: magnitude * 2^-24
    const float value = static_cast<float>(magnitude) * 5.9604644775390625e-8f;
    memcpy(&bits, &value, 4);
  }
  bits |= sign;
  float value;
  memcpy(&value, &bits, 4);
  return value;
}

SRT_INLINE uint16_t FloatToHalf(float value) {  // half to even
  uint32_t bits;
  memcpy(&bits, &value, 4);
  const uint32_t sign = bits >> 16 & 0x8000u;
  const uint32_t magnitude = bits & 0x7fffffffu;
  uint32_t half;
  if (magnitude > 0x7f800000u) {
    half = 0x7e00u;
  } else if (magnitude >= 0x477ff000u) {  // 65520 and more
    half = 0x7c00u;
  } else if (magnitude >= 0x38800000u) {  // normal: 2^-14 and more
    const uint32_t odd = magnitude >> 13 & 1u;
    half = (magnitude - ((127u - 15u) << 23) + 0xfffu + odd) >> 13;
  } else {  // adding 0.5 aligns a denormal's last bit with that of the float, and rounds
    float small;
    memcpy(&small, &magnitude, 4);
    small += 0.5f;
    memcpy(&half, &small, 4);
    half -= 0x3f000000u;
  }
  return static_cast<uint16_t>(sign | half);
}

}  // namespace sparsert
