// Counting of non-zeros and of the panel columns that hold them.
#include "plan/matrix_stats.h"

#include <cstring>

#include "kernels/spmm/spmm.h"

namespace sparsert {

MatrixStats FullStats(int64_t rows, int64_t cols, int32_t groups, uint64_t nnz) {
  MatrixStats stats;
  stats.groups = groups;
  stats.rows = rows / groups;
  stats.depth = cols;
  stats.nnz = nnz;
  stats.bytes = 4 * nnz;
  const auto columns = [&](int64_t panel_rows) {
    return static_cast<uint64_t>((stats.rows + panel_rows - 1) / panel_rows * groups * cols);
  };
  stats.columns4 = columns(4);
  stats.columns8 = columns(8);
  stats.columns16 = columns(16);
  return stats;
}

Status ComputeStats(const Csr& w, int32_t groups, MatrixStats* stats) {
  stats->groups = groups;
  stats->rows = w.rows / groups;
  stats->depth = w.cols;
  stats->nnz = w.nnz();
  struct Panel {  // that saw a column last, numbered over all groups, from 1
    uint32_t of4, of8, of16;
  };
  Array<Panel> seen(w.row_ptr.allocator());
  SRT_RETURN_IF_ERROR(seen.resize(w.cols));
  Panel panel = {};
  for (int64_t row = 0; row < w.rows; ++row) {
    const int64_t in_group = row % stats->rows;
    panel.of4 += in_group % 4 == 0;
    panel.of8 += in_group % 8 == 0;
    panel.of16 += in_group % 16 == 0;
    for (uint32_t i = w.row_ptr[row]; i < w.row_ptr[row + 1]; ++i) {
      uint32_t bits;
      std::memcpy(&bits, &w.values[i], sizeof(bits));
      for (; kHasAny4 && bits != 0; bits >>= 8) stats->bytes += (bits & 255u) != 0;
      Panel& last = seen[w.col_idx[i]];
      stats->columns4 += last.of4 != panel.of4;
      stats->columns8 += last.of8 != panel.of8;
      stats->columns16 += last.of16 != panel.of16;
      last = panel;
    }
  }
  return Status::Ok();
}

}  // namespace sparsert
