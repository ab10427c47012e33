// Copies the inputs of one stack and one block of K: for each channel and column of the kernel, the
// rows that its taps read. Included once per instruction set, after its vec_*.h, with SRT_ISA
// defined.
#pragma once

#include "base/arch.h"
#include "kernels/spmm/spmm.h"

namespace sparsert {
namespace SRT_ISA {
namespace {

// Row and column of Y at which a stack begins.
struct StackPlace {
  int row;
  int column;
};

// Tap (y, x) of the block's channel c of a tile's vector v becomes vector
// (c * kernel_width + x) * StackRows + y + v of `to`. What lies in the padding is 0.
template <int NV>
void FeedStack(const SpmmArgs& a, const PackedMatrix& m, int block, const StackPlace& place,
               const float* x, float* to) {
  const SpmmStack& s = a.stack;
  const int taps = s.kernel_height * s.kernel_width;
  const int first = block * s.channels;
  const int left = m.depth / taps - first;
  const int channels = left < s.channels ? left : s.channels;
  const int rows = NV + s.kernel_height - 1;
  const int64_t to_row =
      static_cast<int64_t>(StackRows(a.tile_vecs, s.kernel_height)) * Vec::kLanes;
  const int top = place.row - s.pad_top;
  const int begin = top < 0 ? (-top < rows ? -top : rows) : 0;
  int end = s.in_height - top;
  end = end > rows ? rows : end < begin ? begin : end;
  for (int column = 0; column < s.kernel_width; ++column) {
    const int at = place.column - s.pad_left + column;
    // The lanes that lie inside: [low, high).
    const int low = at < 0 ? (-at < Vec::kLanes ? -at : Vec::kLanes) : 0;
    int high = s.in_width - at;
    high = high > Vec::kLanes ? Vec::kLanes : high < low ? low : high;
    const bool whole = high - low == Vec::kLanes;
    const Mask mask = MaskFromBits(((1u << high) - 1) & ~((1u << low) - 1));
    // The next stack begins with the last lines that this one reads: what it needs lies behind.
    const bool fetch = a.fetch_x && column == 0;
    const float* from = x + first * a.x_row + static_cast<int64_t>(top + begin) * s.in_width + at;
    float* copy = to + column * to_row;
    for (int c = 0; c < channels; ++c) {
      const float* row = from;
      int i = 0;
      for (; i < begin; ++i) Store(copy + i * Vec::kLanes, Zero());
      if (fetch) {
        for (int r = begin; r < end; ++r) {
          __builtin_prefetch(from + (r - begin) * s.in_width + 2 * Vec::kLanes, 0, 2);
        }
      }
      if (whole) {
        for (; i < end; ++i, row += s.in_width) Store(copy + i * Vec::kLanes, LoadU(row));
      } else {
        for (; i < end; ++i, row += s.in_width) Store(copy + i * Vec::kLanes, LoadMask(row, mask));
      }
      for (; i < rows; ++i) Store(copy + i * Vec::kLanes, Zero());
      from += a.x_row;
      copy += s.kernel_width * to_row;
    }
  }
}

}  // namespace
}  // namespace SRT_ISA
}  // namespace sparsert
