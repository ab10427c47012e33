// A vector of a row of x, of which lanes are picked.
// Included once per instruction set, after its vec_*.h, with SRT_ISA defined.
#pragma once

#include <cstdint>

namespace sparsert {
namespace SRT_ISA {

// Elements *first and on of a row of `in`, or from earlier on, so that no more than the row is
// read; *first becomes where they begin.
SRT_INLINE Vec LoadWindow(const float* x, int64_t in, int32_t* first) {
  const int32_t size = static_cast<int32_t>(in);
  if (size < Vec::kLanes) {
    *first = 0;
    return LoadMask(x, FirstN(size));
  }
  if (*first > size - Vec::kLanes) *first = size - Vec::kLanes;
  return LoadU(x + *first);
}

}  // namespace SRT_ISA
}  // namespace sparsert
