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

// One window: rows [rows[0], rows[1]) and columns [columns[0], columns[1]) of a plane.
static void FindMost(const PoolWindow& w, const float* x, const int64_t* rows,
                     const int64_t* columns, float* most, int64_t* row, int64_t* column) {
  float best = -std::numeric_limits<float>::infinity();
  int64_t at[2] = {-1, 0};
  for (int64_t h = rows[0]; h < rows[1]; h += w.dilation[0]) {
    const float* line = x + h * w.in[1];
    for (int64_t v = columns[0]; v < columns[1]; v += w.dilation[1]) {
      if (at[0] >= 0 && !(line[v] > best)) continue;
      best = line[v];
      at[0] = h;
      at[1] = v;
    }
  }
  *most = best;
  *row = at[0] < 0 ? 0 : at[0];
  *column = at[1];
}

static void PoolIndices(const void* args_block, void* const* io, int64_t begin, int64_t end,
                        void*) {
  const PoolIndicesArgs& args = *static_cast<const PoolIndicesArgs*>(args_block);
  const PoolWindow& w = args.window;
  const int64_t outputs = w.out[0] * w.out[1];
  const int64_t row_step = args.column_major ? 1 : w.in[1];
  const int64_t column_step = args.column_major ? w.in[0] : 1;
  for (int64_t plane = begin; plane < end; ++plane) {
    const float* x = static_cast<const float*>(io[0]) + args.pairs.XOffset(plane);
    float* y = io[1] == nullptr ? nullptr : static_cast<float*>(io[1]) + plane * outputs;
    int64_t* indices = static_cast<int64_t*>(io[2]) + plane * outputs;
    const int64_t first = plane * w.in[0] * w.in[1];
    for (int64_t h = 0; h < w.out[0]; ++h) {
      const int64_t rows[2] = {FirstInside(w, 0, h), EndInside(w, 0, h)};
      for (int64_t v = 0; v < w.out[1]; ++v) {
        const int64_t columns[2] = {FirstInside(w, 1, v), EndInside(w, 1, v)};
        float most = 0.0f;
        int64_t row = 0;
        int64_t column = 0;
        FindMost(w, x, rows, columns, &most, &row, &column);
        if (y != nullptr) *y++ = most;
        *indices++ = first + row * row_step + column * column_step;
      }
    }
  }
}

}  // namespace scalar
}  // namespace sparsert

#define SRT_ISA scalar
SRT_DEFINE_KERNEL(pool_indices_f32_scalar, PoolIndices)
