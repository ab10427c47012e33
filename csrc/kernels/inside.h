// Which of some successive positions lie in a plane.
#pragma once

#include <cstdint>

#include "base/arch.h"

namespace sparsert {

// Bits of the i < 16 with 0 <= first + i < size.
SRT_INLINE uint32_t BitsInside(int64_t first, int64_t size) {
  int64_t low = first >= 0 ? 0 : -first;
  int64_t high = size - first;
  if (low > 16) low = 16;
  if (high > 16) high = 16;
  if (high <= low) return 0;
  return ((uint32_t{1} << (high - low)) - 1) << low;
}

}  // namespace sparsert
