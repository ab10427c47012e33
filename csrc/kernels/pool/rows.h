// Where a pool keeps its rows in scratch memory.
#pragma once

#include "kernels/pool/pool.h"

namespace sparsert {

// A plane is pooled a row of y at a time: down the columns into `row` (contiguous, with the padding
// and enough room past the end to load whole vectors), then along it. With a stride over 1 the row
// is split by column modulo stride into `phases`, so that the second step loads contiguously too.
struct PoolRows {
  int64_t length;        // floats of the padded row that windows reach
  int64_t row_floats;    // with room past the end
  int64_t phase_floats;  // of one phase, with room
  int64_t count_first;   // offset of counts[out width]: elements of each window along the width
  int64_t phases_first;
  int64_t floats;  // in all
};

constexpr int64_t kPoolRoom = 16;  // the widest Vec

SRT_INLINE PoolRows PoolRowsOf(const PoolWindow& w) {
  PoolRows rows;
  rows.length = (w.out[1] - 1) * w.stride[1] + (w.kernel[1] - 1) * w.dilation[1] + 1;
  if (rows.length < w.in[1] + w.pad_begin[1]) rows.length = w.in[1] + w.pad_begin[1];
  rows.row_floats = rows.length + 2 * kPoolRoom;
  rows.phase_floats = rows.length / w.stride[1] + 2 * kPoolRoom;
  rows.count_first = rows.row_floats;
  rows.phases_first = rows.count_first + w.out[1] + kPoolRoom;
  rows.floats = rows.phases_first + (w.stride[1] > 1 ? w.stride[1] * rows.phase_floats : 0);
  return rows;
}

}  // namespace sparsert
