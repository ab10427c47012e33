// What the cost of a weight matrix depends on.
#pragma once

#include "formats/decode.h"

namespace sparsert {

// Sums over all groups.
struct MatrixStats {
  int64_t rows = 0;   // of one group
  int64_t depth = 0;  // columns of W
  int32_t groups = 1;
  uint64_t nnz = 0;
  uint64_t bytes = 0;     // where a weight is four of a byte each: those that are not zero
  uint64_t columns4 = 0;  // columns of 4-row panels with a non-zero
  uint64_t columns8 = 0;  // of 8-row panels
  uint64_t columns16 = 0;
};

// From this share of non-zeros on, a matrix counts as one without zeros.
constexpr double kFullDensity = 0.97;

// Of such a matrix [rows][cols] of all groups.
MatrixStats FullStats(int64_t rows, int64_t cols, int32_t groups, uint64_t nnz);

Status ComputeStats(const Csr& weights, int32_t groups, MatrixStats* stats);

}  // namespace sparsert
