// spmv: y = act(W * x + bias + r) for one vector x at a time, W packed in slices of `lanes` rows.
//
// Sell ("sliced ELLPACK", Monakov et al. 2010): rows are sorted by their number of non-zeros, then
// cut into slices of `lanes` rows; a slice stores, for j = 0 .. width - 1, the j-th non-zero of
// each of its rows side by side (missing ones are 0 at column 0; they do not read x). Columns are
// fetched by gather.
// Bsr<n>: sell with blocks of n rows in the place of rows and columns that hold a non-zero of a
// block in the place of non-zeros: one column for n successive rows, and their weights, zeros
// among them too. Where a block is a whole slice, its x is broadcast and nothing is sorted.
// Bits: a slice stores one bit per element, and the non-zeros column by column, in each by rising
// row; x[k] is broadcast, the column's non-zeros are spread to the lanes whose bits are set. A zero
// is multiplied as in a dense matrix.
// Dense: a slice stores every column; x[k] is broadcast.
// Perm: rows sorted as in sell; a slice is a sequence of vectors that hold each row's next non-zero
// (of bytes, see qspmv.h: its next four, or its next group of four), as far as it lies in a stretch
// of x, and where in it: x is permuted in registers. The stretch of a vector begins where the row
// that is farthest behind has come to.
//
// io: X [batch][x_row], [R or nullptr] [batch][r_row], Y [batch][y_row]. A work item is one (group
// of vectors, chunk of slices): each weight is read once for all vectors of a group.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/arch.h"
#include "base/functions.h"
#include "kernels/kernel.h"

namespace sparsert {

enum class SpmvFormat : uint8_t {
  kDense = 0,
  kSell = 1,
  kBits = 2,
  kBsr4 = 3,
  kBsr8 = 4,
  kBsr16 = 5,
  kPerm = 6,
  kCount = 7,
};

// Rows that share their columns in a format that stores columns; 0: it stores none.
constexpr int SpmvBlockRows(SpmvFormat format) {
  return format == SpmvFormat::kSell    ? 1
         : format == SpmvFormat::kBsr4  ? 4
         : format == SpmvFormat::kBsr8  ? 8
         : format == SpmvFormat::kBsr16 ? 16
                                        : 0;
}

struct PackedSlices {
  int32_t rows = 0;
  int32_t cols = 0;
  int32_t slices = 0;
  int32_t col_blocks = 1;            // sell, bsr: K is cut so that ids fit 16 bits
  bool whole_groups = false;         // perm of bytes: as floats, with groups in their place
  bool perm_pairs = false;           // perm for groups of vectors: see kPermPair
  const uint32_t* row_of = nullptr;  // [slices * lanes] row of each lane; >= rows: none
  const float* bias = nullptr;       // [slices * lanes] in lane order, or nullptr
  // sell, bsr: [col_blocks][slices]. perm: [vectors or pairs] of groups of x before the stretch.
  const uint32_t* widths = nullptr;
  const uint32_t* wholes = nullptr;  // sell, bsr: [col_blocks][slices] leading j that none misses
  // sell, bsr: [col_blocks][slices] into ids / parts and values / lanes. bits: [slices] into
  // values. perm: [slices + 1] vectors before the slice.
  const uint64_t* offsets = nullptr;
  // sell, bsr: column within the block, of each part (row or block of rows) of a slice.
  const uint16_t* ids = nullptr;
  // bits: [slices][cols] masks of SpmvMaskBytes(lanes) bytes, lane 0 in the lowest bit.
  const uint8_t* bits = nullptr;
  // sell, bsr: [sum of widths][lanes]; bits: the non-zeros and `lanes` more; dense:
  // [slices][cols][lanes]; perm: of each four vectors 4 * lanes bytes of PermPlace(), then the
  // weights; of single bytes, of each vector as many places in its stretch as weights, then these.
  const float* values = nullptr;
};

constexpr int SpmvMaskBytes(int lanes) { return lanes > 8 ? 2 : 1; }

constexpr int64_t kSpmvColBlock = 65536;

// The stretch of x of a vector of SpmvFormat::kPerm: of floats or whole groups, and the groups of
// single bytes.
constexpr int kPermFloats = 64;
constexpr int kPermGroups = 32;
// For groups of vectors of x, so many vectors of weights have one stretch, which begins at a whole
// cache line if x does: fewer slots hold a weight, but its loads serve them all. It is of 32 floats
// or groups, for one permutation to do.
constexpr int kPermPair = 2;
constexpr int kPermPairFloats = 32;
// Of floats and whole groups, vectors of a slice come by fours; those left over are empty.
constexpr int kPermVectors = 4;

// Where in its stretch of floats or groups a weight's x stands; 0: it has none. The highest bit
// says which half, for one shuffle reaches no farther.
constexpr uint8_t PermPlace(int at) {
  return static_cast<uint8_t>((at & 31) | 0x40 | (at >= 32 ? 0x80 : 0));
}

// Vectors of a group at most, and of one in this format and with this kernel.
#if defined(SRT_X86)
constexpr int kMaxSpmvGroup = 8;
#else
constexpr int kMaxSpmvGroup = 1;
#endif
constexpr bool SpmvShares(SpmvFormat format) {
  return format == SpmvFormat::kDense || format == SpmvFormat::kBits || format == SpmvFormat::kPerm;
}
constexpr int SpmvGroup(SpmvFormat format, Isa isa) {
  return SpmvShares(format) && isa != Isa::kScalar ? kMaxSpmvGroup : 1;
}

struct SpmvArgs {
  int32_t batch = 1;
  int32_t group = 1;  // vectors, <= SpmvGroup()
  int32_t chunks = 1;
  int64_t x_row = 0, r_row = 0, y_row = 0;  // floats between vectors
  PackedSlices weights;
  Activation act;
};

constexpr int64_t SpmvItemsOf(int32_t batch, int32_t group, int32_t chunks) {
  const int32_t groups = kMaxSpmvGroup > 1 ? (batch + group - 1) / group : batch;
  return static_cast<int64_t>(groups) * chunks;
}
inline int64_t SpmvItems(const SpmvArgs& a) { return SpmvItemsOf(a.batch, a.group, a.chunks); }

// `lanes` gets the rows of a slice.
bool SelectSpmv(SpmvFormat format, Isa isa, Kernel* kernel, int* lanes);

}  // namespace sparsert
