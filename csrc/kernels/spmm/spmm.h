// spmm: Y = act(W * X + bias + R), W a packed (sparse or dense) matrix, X and Y rows of columns.
//
// The one kernel family behind convolutions and linear layers. Per group g and image n,
//
//   Y[row][column] = act(sum over k of W[row][k] * X[k][column] + bias[row] + R[row][column])
//
// where a row of Y is an output channel's plane, a column one of its elements, and X[k] comes
//   direct: from input plane k itself (1 x 1 convolution, stride 1; linear layers), or
//   by taps: k stands for (channel, tap); a tile of columns is copied row by row into an L1-sized
//     scratch through a TapTable, which serves every kernel size, stride, dilation and padding, and
//     transposed convolutions; or
//   by stacks: the same for windows of stride 1 in fewer copies (SpmmStack); ids of such weights
//     are vectors of a block's copies.
//
// Columns are cut into tiles of up to `tile_vecs` vectors; K is cut into blocks of `block_depth`
// rows so that a block's slab of X stays in L1. Partial sums between blocks live in scratch: kept
// in Y, neighbouring tiles of two threads would fight over cache lines. Accumulation order: bias
// (by squares, after the sums), then k in packed order, block by block; then R; then act. Weights
// that exceed L2 are best read once: `by_blocks` computes a block's part of all tiles before it
// goes on to the next block.
//
// Direct X, R and Y may lie in tiles instead of planes: an image's tiles of columns one after the
// other, and in each the tile's columns of row after row, whole vectors. What a tile reads and
// writes is one stretch of memory then.
//
// io: X, [R or nullptr], Y. Y must not overlap X; it may be R itself (same strides), not overlap it
// otherwise. A work item is one (image, group, tile, row split), or, by_blocks, all tiles of one
// (image, group, row split); items are independent. Direct rows
// of X must be readable up to the next multiple of the vector length behind their last column.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/arch.h"
#include "base/functions.h"
#include "kernels/kernel.h"
#include "kernels/spmm/taps.h"

namespace sparsert {

enum class SpmmFormat : uint8_t {
  kDense = 0,    // 4-row panels, every weight
  kCsr = 1,      // row after row, the non-zeros; rows of a 64-row group sorted by their number
  kPat4 = 2,     // 4-row panels, columns bucketed by which of the rows are non-zero
  kBsr4 = 3,     // 4-row panels, columns with any non-zero stored whole
  kBsr8 = 4,     // 8-row panels, the same
  kDense8 = 5,   // 8-row panels, every weight
  kCsr2 = 6,     // rows of a panel by twos that have many columns in common: see Csr2Pair
  kCsr4 = 7,     // two such pairs of equal lengths at a time: see Csr4Group
  kDense16 = 8,  // 16-row panels, every weight, by squares of 16 K-rows
  kBits16 = 9,   // the same squares, with a mask of each one's bytes and those that are not 0
  kAny4 = 10,    // of bytes alone: 4-row panels of two pairs, each row's non-zeros by fours
  kCount = 11,
};

// Formats before this one have kernels for floats on every instruction set; the others on AMX or
// not at all.
constexpr int kFloatFormats = static_cast<int>(SpmmFormat::kDense16);

constexpr int kCsrPanelRows = 64;
constexpr int kCsr2PanelRows = 256;     // at most, and even
constexpr int kCsr4PanelRows = 1024;    // at most, and a multiple of four
constexpr int kCsr4BlockDepth = 256;    // at most: ids are bytes
constexpr int kAny4BlockDepth = 16384;  // at most: ids count bytes of K-rows
constexpr int kPatterns = 15;           // of a 4-row panel's column, the empty one left out

// Two rows of a block: first the columns that both use, then of each row as many others, one of
// either in turn. A row that has fewer is filled up with zeros.
struct Csr2Pair {
  uint16_t row[2];  // within the panel; row[1] may be kNoRow
  uint16_t both;
  uint16_t single;  // of each row
};
constexpr uint16_t kNoRow = 0xffff;

// Two pairs of a block that are computed together. First `both` times a column that rows 0 and 1
// use and one that rows 2 and 3 use, then `single` times one of each row. Ids are bytes. What a row
// has less of is filled up with zeros.
struct Csr4Group {
  uint16_t row[4];  // within the panel; kNoRow where the panel has none left
  uint16_t both;
  uint16_t single;
};

// K-rows of a block which share a tap; the tap-fed tile is filled run by run.
struct FeedRun {
  uint16_t tap;
  uint16_t count;
};

// One group's weights, packed for one format. A panel is `panel_rows` successive rows of W; the
// last one may be padded with zero rows.
struct PackedMatrix {
  int32_t rows = 0;
  int32_t depth = 0;        // packed K-rows (direct: all; by taps: those with a non-zero)
  int32_t block_depth = 0;  // K-rows of a block, at most 65535
  int32_t blocks = 0;       // at least 1
  int32_t panel_rows = 0;
  int32_t panels = 0;
  // kDense: none. kCsr: [blocks][panels * 64] (row within the panel, non-zeros) pairs. kPat4:
  // [blocks][panels][15] columns per pattern 1..15 (bit r = row r). kBsr: [blocks][panels] columns.
  // kCsr2 and kAny4: [blocks][panels][panel_rows / 2] Csr2Pair. kCsr4: [blocks][panels][panel_rows
  // / 4] Csr4Group.
  const uint16_t* counts = nullptr;
  // K-row within the block, per stored column. kAny4: in turn of a pair's first and second row,
  // four times, 4 * K-row + byte.
  const uint16_t* ids = nullptr;
  const float* values = nullptr;         // per column, its rows in rising order; kAny4: four bytes
  const uint32_t* id_offsets = nullptr;  // [blocks][panels], into ids
  const uint32_t* value_offsets = nullptr;  // [blocks][panels], into values
  const uint32_t* channels = nullptr;       // by taps: [depth] input channel of each K-row
  const FeedRun* runs = nullptr;            // by taps: block after block
  const uint32_t* run_offsets = nullptr;    // by taps: [blocks + 1], into runs
};

// Whether any kernel of this build knows stacks, of vectors of 8 lanes and more, any4 and, of
// bytes, csr4; and whether planes may lie in tiles.
#if defined(SRT_ARM)
constexpr bool kHasStacks = false;
constexpr bool kHasAny4 = false;
constexpr bool kHasTiledPlanes = false;
#else
constexpr bool kHasStacks = true;
constexpr bool kHasAny4 = true;
constexpr bool kHasTiledPlanes = true;
#endif

// Rows of the copy that the taps of a column of the kernel share.
SRT_INLINE int32_t StackRows(int32_t tile_vecs, int32_t kernel_height) {
  return tile_vecs + kernel_height - 1;
}

struct SpmmArgs {
  int32_t batch = 1;
  int32_t groups = 1;
  int32_t tiles = 1;
  int32_t splits = 1;
  int32_t vecs = 0;       // vectors of a whole row; tile t covers [t * vecs / tiles, ...)
  int32_t tile_vecs = 0;  // the widest tile
  int64_t columns = 0;    // valid columns, <= vecs * lanes
  bool direct = false;
  bool by_rows = false;        // items go on by tiles of a row split; else by row splits of a tile
  bool by_blocks = false;      // an item is a row split: block by block, all its tiles
  bool fetch_ahead = false;    // R and Y are larger than what stays in L2: prefetch their rows
  bool fetch_weights = false;  // every tile reads many weights anew: prefetch them
  bool fetch_x = false;        // X, read directly or by stacks, is larger than what stays in L2
  bool weights_by_fours = false;  // csr4: four are loaded together and broadcast from a register
  bool join_ends = false;         // of four rows whose last vector has one column
  // Only where kHasTiledPlanes, and of one group.
  bool x_in_tiles = false;
  bool r_in_tiles = false;
  bool y_in_tiles = false;
  TapTable taps;
  SpmmStack stack;
  // Strides in floats.
  int64_t x_image = 0, x_group = 0, x_row = 0;
  int64_t r_image = 0, r_group = 0, r_row = 0;
  int64_t y_image = 0, y_group = 0, y_row = 0;
  const PackedMatrix* weights = nullptr;  // [groups]
  const int32_t* split_panels = nullptr;  // [groups][splits + 1] panel bounds of the row splits
  const float* bias = nullptr;            // [groups * rows] or nullptr
  Activation act;
};

// Tiles of a row split that are items of their own.
SRT_INLINE int SpmmItemTiles(const SpmmArgs& a) { return a.by_blocks ? 1 : a.tiles; }

SRT_INLINE int64_t SpmmItems(const SpmmArgs& a) {
  return static_cast<int64_t>(a.batch) * a.groups * SpmmItemTiles(a) * a.splits;
}

// Floats of the tap-fed tile of one block.
SRT_INLINE int64_t SpmmFeedFloats(const SpmmArgs& a, int lanes, int block_depth) {
  if (a.stack.row_vecs != 0) {
    const int32_t rows = StackRows(a.tile_vecs, a.stack.kernel_height);
    return static_cast<int64_t>(a.stack.channels) * a.stack.kernel_width * rows * lanes;
  }
  return a.direct ? 0 : static_cast<int64_t>(block_depth) * a.tile_vecs * lanes;
}

// Bytes of scratch per thread: that tile, and the partial sums of an item when K has several
// blocks.
size_t SpmmScratch(const SpmmArgs& a, int lanes, int block_depth);

// Floats of scratch of a thread whose weights are packed by squares: x, direct twice; stage, sums;
// w for each of `places`; partial sums of rows follow.
struct SpmmSquareFloats {
  int64_t x, w, stage, sums;
  int32_t places;  // of two panels' pieces of weights
  bool keeps;      // those of all blocks of a row split have a place
};
SpmmSquareFloats SpmmSquareFloatsOf(const SpmmArgs& a, int block_depth);

// Bytes of scratch per thread of such an item.
size_t SpmmSquareScratch(const SpmmArgs& a, int block_depth);

struct SpmmKernel {
  Kernel kernel;
  SpmmFormat format = SpmmFormat::kDense;
  int lanes = 0;     // floats per vector
  int max_vecs = 0;  // widest tile
};

// The kernel of a format on an instruction set, or the next one down. False if there is none.
bool SelectSpmm(SpmmFormat format, Isa isa, SpmmKernel* kernel);

inline bool SpmmIsDense(SpmmFormat format) {
  return format == SpmmFormat::kDense || format == SpmmFormat::kDense8 ||
         format == SpmmFormat::kDense16;
}

// K-rows that are packed together: blocks are filled up to a multiple of them.
constexpr int kSquareRows = 16;
inline bool SpmmHasSquares(SpmmFormat format) {
  return format == SpmmFormat::kDense16 || format == SpmmFormat::kBits16;
}

// Panels whose stored columns are whole.
inline bool SpmmIsPanel(SpmmFormat format) {
  return SpmmIsDense(format) || format == SpmmFormat::kBsr4 || format == SpmmFormat::kBsr8;
}

const char* SpmmFormatName(SpmmFormat format);  // "dense", "csr", ...: as in SpmmFormat
inline int SpmmPanelRows(SpmmFormat format) {
  switch (format) {
    case SpmmFormat::kCsr:
      return kCsrPanelRows;
    case SpmmFormat::kCsr2:
      return kCsr2PanelRows;
    case SpmmFormat::kCsr4:
      return kCsr4PanelRows;
    case SpmmFormat::kBsr8:
    case SpmmFormat::kDense8:
      return 8;
    case SpmmFormat::kDense16:
    case SpmmFormat::kBits16:
      return kSquareRows;
    default:
      return 4;
  }
}

}  // namespace sparsert
