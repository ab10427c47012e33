// Trilu: the upper or lower triangle of matrices; zeros elsewhere.
//
//   y[b, r, c] = upper ? (c >= r + k ? x[b, r, c] : 0) : (c <= r + k ? x[b, r, c] : 0)
#pragma once

#include "base/tensor_desc.h"
#include "kernels/kernel.h"

namespace sparsert {

// io: x, y, plain [matrices, rows, cols].
struct TriluArgs {
  int element_bytes;  // 1, 2, 4 or 8
  bool upper;
  int64_t k;  // within [-2^41, 2^41]
  int64_t matrices;
  int64_t rows;
  int64_t cols;
};

// Work items: rows.
int64_t TriluItems(const TriluArgs& args);

// One kernel for every instruction set.
bool SelectTrilu(const TriluArgs& args, Isa isa, Kernel* kernel);

}  // namespace sparsert
