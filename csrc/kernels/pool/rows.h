// Where a pool keeps its lines in scratch memory.
#pragma once

#include "kernels/pool/pool.h"

namespace sparsert {

// A row of y is pooled down the columns of x into a line, then along it. A line holds the padded
// columns split by column modulo stride into phases, so that the second step loads contiguous
// vectors whatever the stride, with enough room past the end to load and to store whole ones. A few
// lines are made before they are read, which gives their stores time to leave the store buffer.
// Windows of two or four columns that do not overlap need no line.
struct PoolRows {
  int64_t phase_floats;  // of one phase
  int64_t line_floats;   // of one line: a phase per step of the stride
  int64_t count_first;   // offset of counts[out width]: elements of each window along the width
  int64_t scale_first;   // offset of scales[out width]: 1 / elements of windows of full height
  int64_t tap_first;     // offset of int64 taps[kernel width]: of each tap within a line
  int64_t floats;        // in all
};

constexpr int64_t kPoolRoom = 16;  // the widest Vec
constexpr int64_t kPoolLines = 4;

// How often a row is folded in halves: columns of each window are 2 to that power, and its own. 0:
// the windows are others.
SRT_INLINE int PoolHalvings(const PoolWindow& w) {
  const int64_t columns = w.kernel[1];
  if ((columns != 2 && columns != 4) || w.stride[1] != columns || w.dilation[1] != 1 ||
      w.pad_begin[1] != 0 || (w.out[1] - 1) * columns >= w.in[1]) {
    return 0;
  }
  return columns == 2 ? 1 : 2;
}

// Index within a line of a padded column.
SRT_INLINE int64_t PoolLineIndex(const PoolWindow& w, const PoolRows& rows, int64_t column) {
  return column % w.stride[1] * rows.phase_floats + column / w.stride[1];
}

SRT_INLINE PoolRows PoolRowsOf(const PoolWindow& w) {
  int64_t length = (w.out[1] - 1) * w.stride[1] + (w.kernel[1] - 1) * w.dilation[1] + 1;
  if (length < w.in[1] + w.pad_begin[1]) length = w.in[1] + w.pad_begin[1];
  PoolRows rows;
  rows.phase_floats = (length / w.stride[1] + 2 * kPoolRoom) / kPoolRoom * kPoolRoom;
  rows.line_floats = w.stride[1] * rows.phase_floats;
  const int64_t lines = w.out[0] < kPoolLines ? w.out[0] : kPoolLines;
  rows.count_first = PoolHalvings(w) != 0 ? 0 : lines * rows.line_floats;
  rows.scale_first = rows.count_first + w.out[1] + kPoolRoom;
  rows.tap_first = (rows.scale_first + w.out[1] + kPoolRoom + 1) / 2 * 2;
  rows.floats = rows.tap_first + 2 * w.kernel[1];
  return rows;
}

}  // namespace sparsert
