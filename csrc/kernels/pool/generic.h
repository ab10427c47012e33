// Pool over Vec: separable, down the columns and then along the row.
#pragma once

#include "kernels/define.h"
#include "kernels/pool/pool.h"
#include "kernels/pool/rows.h"

namespace sparsert {
namespace SRT_ISA {

constexpr float kLowest = -__builtin_inff();

template <PoolFn Fn>
SRT_INLINE Vec PoolStep(Vec acc, Vec x) {
  return Fn == PoolFn::kMax ? Max(acc, x) : Add(acc, x);
}

// to[i] = Fn over r of x[r * step + i], i in [0, n); rows > 0.
template <PoolFn Fn>
SRT_INLINE void PoolColumns(const float* x, int64_t rows, int64_t step, int64_t n, float* to) {
  int64_t i = 0;
  for (; i + 2 * Vec::kLanes <= n; i += 2 * Vec::kLanes) {
    const float* p = x + i;
    Vec a = LoadU(p);
    Vec b = LoadU(p + Vec::kLanes);
    for (int64_t r = 1; r < rows; ++r) {
      p += step;
      a = PoolStep<Fn>(a, LoadU(p));
      b = PoolStep<Fn>(b, LoadU(p + Vec::kLanes));
    }
    StoreU(to + i, a);
    StoreU(to + i + Vec::kLanes, b);
  }
  for (; i < n; i += Vec::kLanes) {
    const Mask m = FirstN(n - i < Vec::kLanes ? static_cast<int>(n - i) : Vec::kLanes);
    const float* p = x + i;
    Vec a = LoadMask(p, m);
    for (int64_t r = 1; r < rows; ++r) a = PoolStep<Fn>(a, LoadMask(p += step, m));
    StoreMask(to + i, m, a);
  }
}

// phases[j % stride][j / stride] = row[j].
SRT_INLINE void SplitPhases(const float* SRT_RESTRICT row, int64_t stride, const PoolRows& rows,
                            float* SRT_RESTRICT phases) {
  const int64_t n = (rows.length + stride - 1) / stride;
  if (stride == 2) {  // compilers turn this into shuffles
    float* SRT_RESTRICT odd = phases + rows.phase_floats;
    for (int64_t i = 0; i < n; ++i) {
      phases[i] = row[2 * i];
      odd[i] = row[2 * i + 1];
    }
    return;
  }
  for (int64_t p = 0; p < stride; ++p) {
    float* to = phases + p * rows.phase_floats;
    for (int64_t i = 0; i < n && i * stride + p < rows.length; ++i) to[i] = row[i * stride + p];
  }
}

// Maximum, stride 2, every column of every window inside x: straight from x, without scratch.
SRT_INLINE bool IsPlainStride2(const PoolWindow& w) {
  return w.stride[1] == 2 && w.dilation[1] == 1 && w.pad_begin[1] == 0 &&
         (w.out[1] - 1) * 2 + w.kernel[1] <= w.in[1];
}

SRT_INLINE void MaxPlaneStride2(const PoolWindow& w, const float* x, float* y) {
  for (int64_t oh = 0; oh < w.out[0]; ++oh) {
    const int64_t top = oh * w.stride[0] - w.pad_begin[0];
    const float* rows = x + top * w.in[1];
    float* to = y + oh * w.out[1];
    for (int64_t ow = 0; ow < w.out[1]; ow += Vec::kLanes) {
      const int64_t left = w.out[1] - ow;
      const Mask m = FirstN(left < Vec::kLanes ? static_cast<int>(left) : Vec::kLanes);
      Vec acc = Set1(kLowest);
      for (int64_t k = 0; k < w.kernel[0]; ++k) {
        const int64_t at = top + k * w.dilation[0];
        if (at < 0 || at >= w.in[0]) continue;
        const float* p = rows + k * w.dilation[0] * w.in[1] + 2 * ow;
        for (int64_t j = 0; j < w.kernel[1]; ++j) acc = Max(acc, LoadStride2Mask(p + j, m));
      }
      StoreMask(to + ow, m, acc);
    }
  }
}

template <PoolFn Fn>
SRT_INLINE void PoolPlane(const PoolWindow& w, bool count_include_pad, const PoolRows& rows,
                          const float* x, float* y, float* scratch) {
  float* row = scratch;
  const float* counts = scratch + rows.count_first;
  float* phases = scratch + rows.phases_first;
  const int64_t stride = w.stride[1];
  const float* line = stride == 1 ? row : phases;
  for (int64_t oh = 0; oh < w.out[0]; ++oh) {
    // Taps whose row lies inside x: [first, last).
    const int64_t top = oh * w.stride[0] - w.pad_begin[0];
    int64_t first = top < 0 ? (-top + w.dilation[0] - 1) / w.dilation[0] : 0;
    int64_t last = w.kernel[0];
    while (last > first && top + (last - 1) * w.dilation[0] >= w.in[0]) --last;
    float* inner = row + w.pad_begin[1];
    if (first < last) {
      PoolColumns<Fn>(x + (top + first * w.dilation[0]) * w.in[1], last - first,
                      w.dilation[0] * w.in[1], w.in[1], inner);
    } else {
      const float fill = Fn == PoolFn::kMax ? kLowest : 0.0f;
      for (int64_t i = 0; i < w.in[1]; ++i) inner[i] = fill;
    }
    if (stride > 1) SplitPhases(row, stride, rows, phases);
    int64_t height = last - first;
    if (count_include_pad) {
      height = w.kernel[0];
      while (height > 0 && top + (height - 1) * w.dilation[0] >= w.in[0] + w.pad_end[0]) --height;
    }
    const Vec heights = Set1(static_cast<float>(height));
    float* to = y + oh * w.out[1];
    for (int64_t ow = 0; ow < w.out[1]; ow += Vec::kLanes) {
      int64_t phase = 0;
      int64_t quotient = 0;
      Vec acc = LoadU(line + ow);
      for (int64_t k = 1; k < w.kernel[1]; ++k) {
        phase += w.dilation[1];
        while (phase >= stride) {
          phase -= stride;
          ++quotient;
        }
        acc = PoolStep<Fn>(acc, LoadU(line + phase * rows.phase_floats + quotient + ow));
      }
      if (Fn == PoolFn::kAverage) {
        acc = Div(acc, Max(Mul(heights, LoadU(counts + ow)), Set1(1.0f)));
      }
      if (ow + Vec::kLanes <= w.out[1]) {
        StoreU(to + ow, acc);
      } else {
        StoreMask(to + ow, FirstN(static_cast<int>(w.out[1] - ow)), acc);
      }
    }
  }
}

static void Pool(const void* args_block, void* const* io, int64_t begin, int64_t end,
                 void* scratch) {
  const PoolArgs& args = *static_cast<const PoolArgs*>(args_block);
  const PoolWindow& w = args.window;
  const PoolRows rows = PoolRowsOf(w);
  float* row = static_cast<float*>(scratch);
  for (int64_t i = 0; i < rows.floats; ++i) row[i] = args.fn == PoolFn::kMax ? kLowest : 0.0f;
  float* counts = row + rows.count_first;
  for (int64_t ow = 0; ow < w.out[1]; ++ow) {
    const int64_t left = ow * w.stride[1] - w.pad_begin[1];
    const int64_t low = args.count_include_pad ? -w.pad_begin[1] : 0;
    const int64_t high = w.in[1] + (args.count_include_pad ? w.pad_end[1] : 0);
    int64_t count = 0;
    for (int64_t k = 0; k < w.kernel[1]; ++k) {
      const int64_t at = left + k * w.dilation[1];
      count += at >= low && at < high ? 1 : 0;
    }
    counts[ow] = static_cast<float>(count);
  }
  for (int64_t p = begin; p < end; ++p) {
    const float* x = static_cast<const float*>(io[0]) + p * args.x_plane;
    float* y = static_cast<float*>(io[1]) + p * args.y_plane;
    if (args.fn == PoolFn::kMax && IsPlainStride2(w)) {
      MaxPlaneStride2(w, x, y);
    } else if (args.fn == PoolFn::kMax) {
      PoolPlane<PoolFn::kMax>(w, false, rows, x, y, row);
    } else {
      PoolPlane<PoolFn::kAverage>(w, args.count_include_pad, rows, x, y, row);
    }
  }
}

template <PoolFn Fn>
SRT_INLINE float PoolAll(const float* x, int64_t n) {
  const Vec start = Set1(Fn == PoolFn::kMax ? kLowest : 0.0f);
  Vec a = start;
  Vec b = start;
  Vec c = start;
  Vec d = start;
  int64_t i = 0;
  for (; i + 4 * Vec::kLanes <= n; i += 4 * Vec::kLanes) {
    a = PoolStep<Fn>(a, LoadU(x + i));
    b = PoolStep<Fn>(b, LoadU(x + i + Vec::kLanes));
    c = PoolStep<Fn>(c, LoadU(x + i + 2 * Vec::kLanes));
    d = PoolStep<Fn>(d, LoadU(x + i + 3 * Vec::kLanes));
  }
  for (; i + Vec::kLanes <= n; i += Vec::kLanes) a = PoolStep<Fn>(a, LoadU(x + i));
  if (i < n) {
    const Mask m = FirstN(static_cast<int>(n - i));
    b = PoolStep<Fn>(b, Select(m, LoadMask(x + i, m), start));
  }
  a = PoolStep<Fn>(PoolStep<Fn>(a, b), PoolStep<Fn>(c, d));
  return Fn == PoolFn::kMax ? ReduceMax(a) : ReduceAdd(a);
}

static void GlobalPool(const void* args_block, void* const* io, int64_t begin, int64_t end, void*) {
  const GlobalPoolArgs& args = *static_cast<const GlobalPoolArgs*>(args_block);
  const float* x = static_cast<const float*>(io[0]);
  float* y = static_cast<float*>(io[1]);
  for (int64_t p = begin; p < end; ++p) {
    const float* plane = x + p * args.x_plane;
    float* to = y + p * args.y_plane;
    if (args.fn == PoolFn::kMax) {
      *to = PoolAll<PoolFn::kMax>(plane, args.plane);
      continue;
    }
    // Long planes in pieces, so that rounding errors do not grow with their length.
    double sum = 0.0;
    for (int64_t i = 0; i < args.plane; i += 4096) {
      sum += PoolAll<PoolFn::kAverage>(plane + i, args.plane - i < 4096 ? args.plane - i : 4096);
    }
    *to = static_cast<float>(sum / static_cast<double>(args.plane));
  }
}

}  // namespace SRT_ISA
}  // namespace sparsert
