// qtaps in loops that compilers turn into vectors. Included once per instruction set, with SRT_ISA
// defined.
#pragma once

#include <cstring>

#include "kernels/define.h"
#include "kernels/qtaps/qtaps.h"

namespace sparsert {
namespace SRT_ISA {

// One channel of a row of x: `line` begins with the padding.
static void PickChannel(const uint32_t* __restrict x, int64_t n, int channel,
                        uint8_t* __restrict line) {
  const int shift = 8 * channel;
  for (int64_t i = 0; i < n; ++i) line[i] = static_cast<uint8_t>(x[i] >> shift);
}

// Words of `Word` lie one stride apart: a group of four bytes is two or four neighbours.
template <typename Word>
static void JoinTaps(const uint8_t* __restrict line, int64_t n, uint32_t* __restrict y) {
  constexpr int kBytes = sizeof(Word);
  for (int64_t i = 0; i < n; ++i) {
    uint32_t joined = 0;
#pragma GCC unroll 4
    for (int j = 0; j < 4 / kBytes; ++j) {
      Word word;
      memcpy(&word, line + (i + j) * kBytes, sizeof(word));
      joined |= static_cast<uint32_t>(word) << (8 * kBytes * j);
    }
    y[i] = joined;
  }
}

static void Qtaps(const void* args_block, void* const* io, int64_t begin, int64_t end,
                  void* scratch) {
  const QtapsArgs& a = *static_cast<const QtapsArgs*>(args_block);
  auto* line = static_cast<uint8_t*>(scratch);
  const int64_t length = QtapsLength(a);
  const int64_t inside = a.in_w < length - a.pad_w ? a.in_w : length - a.pad_w;
  for (int64_t item = begin; item < end; ++item) {
    const int64_t row = item % a.rows;
    const int64_t image = item / a.rows;
    const int64_t from = row - a.pad_h;
    const bool exists = from >= 0 && from < a.in_h;
    for (int64_t c = 0; c < a.channels; ++c) {
      memset(line, a.zero, static_cast<size_t>(length));
      if (exists && inside > 0) {
        PickChannel(static_cast<const uint32_t*>(io[0]) + image * a.x_image + from * a.in_w, inside,
                    static_cast<int>(c), line + a.pad_w);
      }
      uint32_t* y =
          static_cast<uint32_t*>(io[1]) + image * a.y_image + c * a.y_plane + row * a.columns;
      if (a.stride == 1) {
        JoinTaps<uint8_t>(line, a.columns, y);
      } else if (a.stride == 2) {
        JoinTaps<uint16_t>(line, a.columns, y);
      } else {
        JoinTaps<uint32_t>(line, a.columns, y);
      }
    }
  }
}

}  // namespace SRT_ISA
}  // namespace sparsert
