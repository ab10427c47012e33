// Maxima with their places: a kernel that no instruction set makes faster.
#include <limits>

#include "kernels/define.h"
#include "kernels/pool/pool.h"

namespace sparsert {
namespace scalar {

// The elements of x that window position o covers along axis a: every dilation-th in [*first, end).
static int64_t FirstInside(const PoolWindow& w, int a, int64_t o) {
  int64_t first = o * w.stride[a] - w.pad_begin[a];
  if (first < 0) first += (-first + w.dilation[a] - 1) / w.dilation[a] * w.dilation[a];
  return first;
}

static int64_t EndInside(const PoolWindow& w, int a, int64_t o) {
  const int64_t end = o * w.stride[a] - w.pad_begin[a] + (w.kernel[a] - 1) * w.dilation[a] + 1;
  return end < w.in[a] ? end : w.in[a];
}

static void PoolIndices(const void* args_block, void* const* io, int64_t begin, int64_t end,
                        void*) {
  const PoolIndicesArgs& args = *static_cast<const PoolIndicesArgs*>(args_block);
  const PoolWindow& w = args.window;
  const int64_t outputs = w.out[0] * w.out[1];
  const int64_t elements = w.in[0] * w.in[1];
  for (int64_t plane = begin; plane < end; ++plane) {
    const float* x = static_cast<const float*>(io[0]) + args.pairs.XOffset(plane);
    for (int64_t o = 0; o < outputs; ++o) {
      const int64_t rows[2] = {FirstInside(w, 0, o / w.out[1]), EndInside(w, 0, o / w.out[1])};
      const int64_t columns[2] = {FirstInside(w, 1, o % w.out[1]), EndInside(w, 1, o % w.out[1])};
      float most = -std::numeric_limits<float>::infinity();
      int64_t place = -1;
      for (int64_t h = rows[0]; h < rows[1]; h += w.dilation[0]) {
        for (int64_t v = columns[0]; v < columns[1]; v += w.dilation[1]) {
          const float value = x[h * w.in[1] + v];
          if (place >= 0 && !(value > most)) continue;
          most = value;
          place = args.column_major ? v * w.in[0] + h : h * w.in[1] + v;
        }
      }
      if (io[1] != nullptr) static_cast<float*>(io[1])[plane * outputs + o] = most;
      static_cast<int64_t*>(io[2])[plane * outputs + o] =
          plane * elements + (place < 0 ? 0 : place);
    }
  }
}

}  // namespace scalar
}  // namespace sparsert

#define SRT_ISA scalar
SRT_DEFINE_KERNEL(pool_indices_f32_scalar, PoolIndices)
