// qspmm: Y = W * X over bytes, W a packed (sparse or dense) matrix of signed bytes.
//
// spmm's algorithm, tiles, taps and formats (see spmm.h) with four input channels in the place of
// one float: X holds unsigned bytes as [channels / 4][columns][4], and a packed "value" is the four
// signed weights of such a group; a group counts as non-zero if one of its weights is. Sums are
// 32-bit and exact:
//
//   sum = start[row] + sum over k of W[row][k] * X[k][column]
//
// `start` holds the bias less what X's zero point adds. Then, with z = sum * scale[row],
//
//   f32:   Y[row][column] = act(z + bias[row] + R[row][column]); rows of Y and R are planes
//   bytes: Y = clamp(round(z) + zero, low, high), half to even
//   bytes with R: q as above; Y = clamp(round((q - zero) * sum_scale + (R - r_zero) * r_scale) +
//          out_zero, out_low, out_high)
//
//   bytes with `then`: Y is what Elementwise (kernels/quantize) makes of q and R
//
// where bytes of Y and R are laid out as X is, and magnitudes before rounding stay below 2^31.
// Signed bytes are stored with 128 added, their zero points too.
//
// Where only a run knows what the bytes of X stand for (`at_run`), the zero point of X, `start` and
// `scale` are those of io[3], which QspmmRowScales fills in: see QspmmRows.
//
// io: X, [R or nullptr], Y, [rows]. What spmm says about overlap, items and scratch holds here too;
// strides are in groups of four bytes, those of an f32 Y in floats. Rows of a group beyond the last
// are written as its zero point.
#pragma once

#include "kernels/quantize/quantize.h"
#include "kernels/spmm/spmm.h"

namespace sparsert {

// Rows of a panel of SpmmFormat::kCsr2 here: those whose bytes lie together.
constexpr int kQspmmCsr2Rows = 4;

struct QspmmArgs {
  SpmmArgs product;  // act, bias and R: of an f32 Y. y_group, r_group: planes of four rows, or rows
  bool f32_output = false;
  bool at_run = false;             // fill, start and scale are not used
  bool half_tails = false;         // half a vector takes half the time: see kHasHalfDots
  uint8_t fill = 0;                // X where a tap lies in the padding: its zero point
  const int32_t* start = nullptr;  // [groups * rows]
  const float* scale = nullptr;    // [groups * rows]
  int32_t zero = 0, low = 0, high = 255;
  float sum_scale = 0.0f, r_scale = 0.0f;
  int32_t r_zero = 0;
  int32_t out_zero = 0, out_low = 0, out_high = 255;
  // nullptr, or what becomes of the bytes, of one group: they are not stored. Of the shape and the
  // strides there, those of the product count instead.
  const QuantizeArgs* then = nullptr;
};

// What the rows of a product start from and are scaled by.
struct QspmmRows {
  uint8_t fill;
  const int32_t* start;
  const float* scale;
};

// Where they lie in io[3]: the zero point, then start and scale, each of whole cache lines.
constexpr int64_t kQspmmRowsHeader = 16;
SRT_INLINE int64_t QspmmPaddedRows(int64_t rows) { return (rows + 15) / 16 * 16; }
SRT_INLINE int64_t QspmmRowsFloats(int64_t rows) {
  return kQspmmRowsHeader + 2 * QspmmPaddedRows(rows);
}
SRT_INLINE QspmmRows FindQspmmRows(const QspmmArgs& q, int64_t rows, const void* at_run) {
  if (!q.at_run) return {q.fill, q.start, q.scale};
  const auto* zero = static_cast<const int32_t*>(at_run);
  const int32_t* start = zero + kQspmmRowsHeader;
  const auto* scale = static_cast<const float*>(at_run) + kQspmmRowsHeader;
  return {static_cast<uint8_t>(*zero), start, scale + QspmmPaddedRows(rows)};
}

// One item: start[r] = (byte_offset - zero) * weights[r], scale[r] = step * row_scale[r].
// io: params [2]: step, the scale of X, and its zero point; rows.
struct QspmmRowScalesArgs {
  int64_t rows = 0;
  const int32_t* weights = nullptr;  // [rows] sums of the row's weights
  const float* row_scale = nullptr;  // [rows]
  int32_t byte_offset = 0;           // of the product's kernel
};
Kernel QspmmRowScales();

struct QspmmKernel : SpmmKernel {  // `lanes`: groups of four bytes
  int byte_offset = 0;  // the kernel subtracts it from X: start must add it times the row's weights
};

// The kernel of a format on an instruction set, or the next one down. False if there is none.
bool SelectQspmm(SpmmFormat format, Isa isa, QspmmKernel* kernel);

// Floats of scratch of an item whose weights are packed by squares; partial sums of rows follow.
struct SquareScratchFloats {
  int64_t slab, sums, tail, spread;
};
SRT_INLINE SquareScratchFloats SquareScratchOf(const SpmmArgs& a, int block_depth) {
  constexpr int kLanes = 16;
  const int64_t squares = (block_depth + kSquareRows - 1) / kSquareRows;
  const int64_t columns = static_cast<int64_t>(a.by_blocks ? a.vecs : a.tile_vecs) * kLanes;
  return {a.direct ? 0 : squares * kSquareRows * columns, 2 * 32 * 32 + 32 * kLanes,
          kSquareRows * columns, 2 * squares * kSquareRows * kLanes};
}

// Vectors of the widest tile of SpmmFormat::kAny4, and floats of scratch of a block's slab of X
// turned to rows of bytes, of a vector each, or of kCsr4, whose tiles are narrower, side by side;
// partial sums of rows follow.
constexpr int kAny4Vecs = 4;
SRT_INLINE int64_t QspmmPreparedFloats(int lanes, int block_depth) {
  return static_cast<int64_t>(block_depth) * 4 * lanes;
}

// Bytes of scratch per thread.
size_t QspmmScratch(const QspmmArgs& a, const QspmmKernel& kernel, int block_depth);

}  // namespace sparsert
