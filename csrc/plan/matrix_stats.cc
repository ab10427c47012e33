// Counting of non-zeros and of the panel columns that hold them.
#include "plan/matrix_stats.h"

namespace sparsert {

MatrixStats FullStats(int64_t rows, int64_t cols, int32_t groups, uint64_t nnz) {
  MatrixStats stats;
  stats.groups = groups;
  stats.rows = rows / groups;
  stats.depth = cols;
  stats.nnz = nnz;
  stats.columns4 = static_cast<uint64_t>((stats.rows + 3) / 4 * groups * cols);
  stats.columns8 = static_cast<uint64_t>((stats.rows + 7) / 8 * groups * cols);
  return stats;
}

Status ComputeStats(const Csr& w, int32_t groups, MatrixStats* stats) {
  stats->groups = groups;
  stats->rows = w.rows / groups;
  stats->depth = w.cols;
  stats->nnz = w.nnz();
  Array<uint32_t> seen4(w.row_ptr.allocator());
  Array<uint32_t> seen8(w.row_ptr.allocator());
  SRT_RETURN_IF_ERROR(seen4.resize(w.cols));
  SRT_RETURN_IF_ERROR(seen8.resize(w.cols));
  uint32_t panel4 = 0;  // numbers panels over all groups, from 1
  uint32_t panel8 = 0;
  for (int64_t row = 0; row < w.rows; ++row) {
    const int64_t in_group = row % stats->rows;
    panel4 += in_group % 4 == 0;
    panel8 += in_group % 8 == 0;
    for (uint32_t i = w.row_ptr[row]; i < w.row_ptr[row + 1]; ++i) {
      const uint32_t k = w.col_idx[i];
      stats->columns4 += seen4[k] != panel4;
      stats->columns8 += seen8[k] != panel8;
      seen4[k] = panel4;
      seen8[k] = panel8;
    }
  }
  return Status::Ok();
}

}  // namespace sparsert
