// Squares of floats, one vector per row. Include after one vec_<isa>.h, with SRT_ISA defined.
#pragma once

#ifndef SRT_ISA
#error "define SRT_ISA and include a simd/vec_<isa>.h first"
#endif

namespace sparsert {
namespace SRT_ISA {

struct Square {
  Vec rows[Vec::kLanes];
};

// Rows become columns: each round interleaves rows that are half of the square apart.
inline void Transpose(Square* s) {
  constexpr int kHalf = Vec::kLanes / 2;
#pragma GCC unroll 4
  for (int round = 1; round < Vec::kLanes; round *= 2) {
    Square next;
#pragma GCC unroll 8
    for (int i = 0; i < kHalf; ++i) {
      next.rows[2 * i] = ZipLower(s->rows[i], s->rows[i + kHalf]);
      next.rows[2 * i + 1] = ZipUpper(s->rows[i], s->rows[i + kHalf]);
    }
    *s = next;
  }
}

}  // namespace SRT_ISA
}  // namespace sparsert
