// IEEE half to single precision, exact for every bit pattern.
#pragma once

#include <cstdint>
#include <cstring>

namespace sparsert {

inline float HalfToFloat(uint16_t half) {
  // Exponent and mantissa moved into a float are the value times 2^-112; the multiplication also
  // normalises subnormals. Exponent 31 (infinity, NaN) is fixed up afterwards.
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
  uint32_t bits = static_cast<uint32_t>(half & 0x7fffu) << 13;
  float magnitude;
  memcpy(&magnitude, &bits, sizeof(magnitude));
  magnitude *= 5.192296858534828e33f;  // 2^112
  memcpy(&bits, &magnitude, sizeof(bits));
  if ((half & 0x7c00u) == 0x7c00u) bits = 0x7f800000u | static_cast<uint32_t>(half & 0x3ffu) << 13;
  bits |= sign;
  float result;
  memcpy(&result, &bits, sizeof(result));
  return result;
}

}  // namespace sparsert
