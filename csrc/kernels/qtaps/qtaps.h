// qtaps: brings four taps of a row side by side, for convolutions of few channels.
//
//   y[image][channel][row][column][j] =
//       x[image][0][row - pad_h][column * stride + j - pad_w][channel]     (bytes)
//
// or the zero point where that lies in the padding: a dot product then does four taps of one
// channel, where packed channels that do not exist would be multiplied by zeros.
//
// io: x (packed, at most four channels), y (groups of four bytes). A work item is a row of y in all
// channels.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/kernel.h"

namespace sparsert {

struct QtapsArgs {
  int64_t batch = 1;
  int64_t channels = 1;
  int64_t in_h = 1, in_w = 1;
  int64_t rows = 1, columns = 1;  // of y
  int64_t stride = 1;             // 1, 2 or 4
  int64_t pad_h = 0, pad_w = 0;   // before the first row and column
  uint8_t zero = 0;
  // Strides in groups of four bytes.
  int64_t x_image = 0;
  int64_t y_image = 0, y_plane = 0;
};

inline int64_t QtapsItems(const QtapsArgs& a) { return a.batch * a.rows; }

// Bytes that the groups of a row lie over, which is the scratch of a thread: one channel of a row.
inline int64_t QtapsLength(const QtapsArgs& a) { return (a.columns - 1) * a.stride + 4; }

bool SelectQtaps(Isa isa, Kernel* kernel);

}  // namespace sparsert
