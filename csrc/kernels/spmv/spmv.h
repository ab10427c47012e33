// spmv: y = act(W * x + bias + r) for one vector x at a time, W packed in slices of `lanes` rows.
//
// Sell ("sliced ELLPACK", Monakov et al. 2010): rows are sorted by their number of non-zeros, then
// cut into slices of `lanes` rows; a slice stores, for j = 0 .. width - 1, the j-th non-zero of
// each of its rows side by side (missing ones are 0 at column 0; they do not read x). Columns are
// fetched by gather.
// Bits: a slice stores one bit per element, and the non-zeros column by column, in each by rising
// row; x[k] is broadcast, the column's non-zeros are spread to the lanes whose bits are set. A zero
// is multiplied as in a dense matrix.
// Dense: a slice stores every column; x[k] is broadcast.
//
// io: X [batch][x_row], [R or nullptr] [batch][r_row], Y [batch][y_row]. A work item is one
// (vector, chunk of slices).
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/functions.h"
#include "kernels/kernel.h"

namespace sparsert {

enum class SpmvFormat : uint8_t { kDense = 0, kSell = 1, kBits = 2 };

struct PackedSlices {
  int32_t rows = 0;
  int32_t cols = 0;
  int32_t slices = 0;
  int32_t col_blocks = 1;            // sell: K is cut so that ids fit 16 bits
  const uint32_t* row_of = nullptr;  // [slices * lanes] row of each lane; >= rows: none
  const float* bias = nullptr;       // [slices * lanes] in lane order, or nullptr
  const uint32_t* widths = nullptr;  // sell: [col_blocks][slices]
  const uint32_t* wholes = nullptr;  // sell: [col_blocks][slices] leading j that no row misses
  // sell: [col_blocks][slices] into ids and values / lanes. bits: [slices] into values.
  const uint64_t* offsets = nullptr;
  const uint16_t* ids = nullptr;  // sell: column within the block
  // bits: [slices][cols] masks of SpmvMaskBytes(lanes) bytes, lane 0 in the lowest bit.
  const uint8_t* bits = nullptr;
  // sell: [sum of widths][lanes]; bits: the non-zeros and `lanes` more; dense:
  // [slices][cols][lanes].
  const float* values = nullptr;
};

constexpr int SpmvMaskBytes(int lanes) { return lanes > 8 ? 2 : 1; }

constexpr int64_t kSpmvColBlock = 65536;

struct SpmvArgs {
  int32_t batch = 1;
  int32_t chunks = 1;
  int64_t x_row = 0, r_row = 0, y_row = 0;  // floats between vectors
  PackedSlices weights;
  Activation act;
};

inline int64_t SpmvItems(const SpmvArgs& a) { return static_cast<int64_t>(a.batch) * a.chunks; }

// `lanes` gets the rows of a slice.
bool SelectSpmv(SpmvFormat format, Isa isa, Kernel* kernel, int* lanes);

}  // namespace sparsert
