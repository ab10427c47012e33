// The choice of a layer's compute format: statistics, analytic cost, candidates.
#pragma once

#include "formats/decode.h"
#include "kernels/spmm/spmm.h"
#include "plan/build_taps.h"

namespace sparsert {

// What the cost of a matrix depends on, summed over the groups.
struct MatrixStats {
  int64_t rows = 0;       // of one group
  int64_t depth = 0;      // columns of W
  int32_t groups = 1;
  uint64_t nnz = 0;
  uint64_t columns4 = 0;  // columns of 4-row panels with a non-zero
  uint64_t columns8 = 0;  // of 8-row panels
};

Status ComputeStats(const Csr& weights, int32_t groups, MatrixStats* stats);

struct SpmmProblem {
  int64_t columns = 0;   // of one image
  int64_t batch = 1;
  bool direct = false;
  double feed_cost = 1.0;  // cycles per vector copied by the tile feed
};

struct SpmmChoice {
  SpmmKernel kernel;
  Tiling tiling;
  int32_t block_depth = 0;
  double predicted_ns = 0.0;  // one thread
};

constexpr int kMaxSpmmChoices = static_cast<int>(SpmmFormat::kCount);

// Candidates with their predicted times, best first. Returns their number.
int RankSpmm(const MatrixStats& stats, const SpmmProblem& problem, Isa isa, SpmmChoice* choices);

}  // namespace sparsert
