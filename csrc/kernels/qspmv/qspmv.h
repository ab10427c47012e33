// qspmv: y = W * x over bytes, for one vector x at a time: spmv's slices (see spmv.h) with four
// input channels in the place of one float, and what qspmm makes of the sums (see qspmm.h).
//
// io: X [batch][x_row] packed bytes, [R or nullptr], Y [batch][y_row]: packed bytes or floats, R as
// Y, [rows, see QspmmRows]. A work item is one (group of vectors, chunk of slices).
#pragma once

#include "kernels/qspmm/qspmm.h"
#include "kernels/spmv/spmv.h"

namespace sparsert {

struct QspmvArgs {
  int32_t batch = 1;
  int32_t group = 1;  // vectors, <= SpmvGroup()
  int32_t chunks = 1;
  int64_t x_row = 0, r_row = 0, y_row = 0;  // elements between vectors
  PackedSlices weights;                     // without bias
  QspmmArgs output;                         // `product`: only bias and act
};

// Whether perm stores groups of four bytes whole, 5 bytes for each, or bytes that are not 0, 2
// bytes for each.
constexpr bool PermStoresGroups(uint64_t groups, uint64_t nonzero_bytes) {
  return 5 * groups < 2 * nonzero_bytes;
}

inline int64_t QspmvItems(const QspmvArgs& a) { return SpmvItemsOf(a.batch, a.group, a.chunks); }

// `lanes` gets the rows of a slice; `byte_offset` as QspmmKernel's. SpmvFormat::kPerm needs a CPU
// with AVX512-VBMI, which some with AVX512-VNNI lack.
bool SelectQspmv(SpmvFormat format, Isa isa, Kernel* kernel, int* lanes, int* byte_offset);

}  // namespace sparsert
