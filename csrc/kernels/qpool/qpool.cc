// Qpool: selection, and the mean, which is the same on every instruction set.
#include "kernels/qpool/qpool.h"

#include <algorithm>
#include <cmath>

#include "kernels/select.h"

namespace sparsert {

#define SRT_QPOOL(function, isa, lanes) SRT_DECLARE_KERNEL(function, isa)
#include "kernels/qpool/kernels.inc"
#undef SRT_QPOOL

namespace {

struct Row {
  Kernel kernel;
  int lanes;
};

const Row kRows[] = {
#define SRT_QPOOL(function, isa, lanes) {{function, #function, Isa::isa}, lanes},
#include "kernels/qpool/kernels.inc"
#undef SRT_QPOOL
};

// The bytes of four channels, summed over at most 256 elements at a time: two sums of 16 bits each.
class ByteSums {
 public:
  void Add(const uint32_t* x, int64_t n, int64_t step) {
    while (n > 0) {
      const int64_t part = std::min<int64_t>(n, 256);
      uint32_t even = 0;
      uint32_t odd = 0;
      if (step == 1) {
        for (int64_t i = 0; i < part; ++i) {
          even += x[i] & 0x00ff00ffu;
          odd += x[i] >> 8 & 0x00ff00ffu;
        }
      } else {
        for (int64_t i = 0; i < part; ++i) {
          even += x[i * step] & 0x00ff00ffu;
          odd += x[i * step] >> 8 & 0x00ff00ffu;
        }
      }
      sum[0] += even & 0xffffu;
      sum[1] += odd & 0xffffu;
      sum[2] += even >> 16;
      sum[3] += odd >> 16;
      x += part * step;
      n -= part;
    }
  }
  int64_t sum[4] = {};
};

uint32_t MeanBytes(const QpoolArgs& a, const ByteSums& sums, int64_t elements, int64_t count) {
  uint32_t bytes = 0;
  for (int r = 0; r < 4; ++r) {
    const int64_t sum = sums.sum[r] - elements * a.x_zero;
    const float mean = static_cast<float>(sum) / static_cast<float>(count);
    const float low = static_cast<float>(a.low - a.zero);
    const float high = static_cast<float>(a.high - a.zero);
    const float z = std::nearbyint(std::min(std::max(mean * a.scale, low), high));
    bytes |= static_cast<uint32_t>(static_cast<int32_t>(z) + a.zero) << (8 * r);
  }
  return bytes;
}

// Taps of a window at `at` which lie in [0, size): the first, and their number.
void TapsInside(int64_t at, int64_t dilation, int64_t kernel, int64_t size, int64_t* first,
                int64_t* count) {
  *first = at < 0 ? (-at + dilation - 1) / dilation : 0;
  const int64_t end = at >= size ? 0 : std::min(kernel, (size - 1 - at) / dilation + 1);
  *count = std::max<int64_t>(0, end - *first);
}

void MeanPool(const void* args_block, void* const* io, int64_t begin, int64_t end, void*) {
  const QpoolArgs& a = *static_cast<const QpoolArgs*>(args_block);
  for (int64_t item = begin; item < end; ++item) {
    const int64_t image = item / a.planes;
    const int64_t plane = item % a.planes;
    const uint32_t* x = static_cast<const uint32_t*>(io[0]) + image * a.x_image + plane * a.x_plane;
    uint32_t* y = static_cast<uint32_t*>(io[1]) + image * a.y_image + plane * a.y_plane;
    for (int64_t oy = 0; oy < a.out[0]; ++oy) {
      const int64_t top = oy * a.stride[0] - a.pad_begin[0];
      int64_t first_row = 0;
      int64_t rows = 0;
      int64_t padded_first = 0;
      int64_t padded_rows = 0;
      TapsInside(top, a.dilation[0], a.kernel[0], a.in[0], &first_row, &rows);
      TapsInside(top + a.pad_begin[0], a.dilation[0], a.kernel[0], a.ends[0], &padded_first,
                 &padded_rows);
      for (int64_t ox = 0; ox < a.out[1]; ++ox) {
        const int64_t left = ox * a.stride[1] - a.pad_begin[1];
        int64_t first = 0;
        int64_t columns = 0;
        int64_t padded_columns = 0;
        TapsInside(left, a.dilation[1], a.kernel[1], a.in[1], &first, &columns);
        TapsInside(left + a.pad_begin[1], a.dilation[1], a.kernel[1], a.ends[1], &padded_first,
                   &padded_columns);
        ByteSums sums;
        const int64_t elements = rows * columns;
        if (columns == a.in[1] && a.dilation[0] == 1 && a.dilation[1] == 1) {
          sums.Add(x + (top + first_row) * a.in[1], elements, 1);  // whole rows
        } else {
          for (int64_t k = first_row; k < first_row + rows; ++k) {
            sums.Add(x + (top + k * a.dilation[0]) * a.in[1] + left + first * a.dilation[1],
                     columns, a.dilation[1]);
          }
        }
        const int64_t count = a.count_padding ? padded_rows * padded_columns : elements;
        *y++ = MeanBytes(a, sums, elements, std::max<int64_t>(1, count));
      }
    }
  }
}

}  // namespace

bool SelectQmaxPool(Isa isa, Kernel* kernel, int* lanes) {
  for (const Row& row : kRows) {
    if (!IsaCovers(isa, row.kernel.isa)) continue;
    *kernel = row.kernel;
    *lanes = row.lanes;
    return true;
  }
  return false;
}

Kernel QaveragePool() { return {&MeanPool, "qaveragepool_i8_scalar", Isa::kScalar}; }

}  // namespace sparsert
