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

template <PoolFn Fn>
SRT_INLINE float PoolStart() {
  return Fn == PoolFn::kMax ? kLowest : 0.0f;
}

// Rows of x under a row of y: [rows][width], `step` floats apart; rows may be 0.
struct PoolColumns {
  const float* x;
  int64_t rows;
  int64_t step;
  int64_t width;
};

// Fn down the columns [i, i + lanes), all inside x. kRows: the number of rows, or 0 for any but 0.
template <PoolFn Fn, int kRows>
SRT_INLINE Vec FoldColumns(const PoolColumns& c, int64_t i) {
  const int64_t rows = kRows == 0 ? c.rows : kRows;
  const float* p = c.x + i;
  Vec acc = LoadU(p);
  for (int64_t r = 1; r < rows; ++r) acc = PoolStep<Fn>(acc, LoadU(p += c.step));
  return acc;
}

// The same for columns that may lie outside x, which give the neutral element, and any rows.
template <PoolFn Fn>
SRT_INLINE Vec FoldEdge(const PoolColumns& c, int64_t i) {
  const Vec start = Set1(PoolStart<Fn>());
  const int64_t left = c.width - i;
  if (left <= 0 || c.rows == 0) return start;
  const Mask m = FirstN(left < Vec::kLanes ? static_cast<int>(left) : Vec::kLanes);
  const float* p = c.x + i;
  Vec acc = LoadMask(p, m);
  for (int64_t r = 1; r < c.rows; ++r) acc = PoolStep<Fn>(acc, LoadMask(p += c.step, m));
  return Select(m, acc, start);
}

// Calls put(i, a) with the columns [i, i + lanes) folded, for all i.
template <PoolFn Fn, int kRows, typename Put>
SRT_INLINE void ForColumns(const PoolColumns& c, Put&& put) {
  int64_t i = 0;
  if (c.rows != 0) {
    for (; i + Vec::kLanes <= c.width; i += Vec::kLanes) put(i, FoldColumns<Fn, kRows>(c, i));
  }
  for (; i < c.width; i += Vec::kLanes) put(i, FoldEdge<Fn>(c, i));
}

// Calls put(i, a, b) with the columns [i, i + lanes) and [i + lanes, i + 2 lanes).
template <PoolFn Fn, int kRows, typename Put>
SRT_INLINE void ForColumnPairs(const PoolColumns& c, Put&& put) {
  constexpr int64_t kLanes = Vec::kLanes;
  int64_t i = 0;
  if (c.rows != 0) {
    for (; i + 2 * kLanes <= c.width; i += 2 * kLanes) {
      put(i, FoldColumns<Fn, kRows>(c, i), FoldColumns<Fn, kRows>(c, i + kLanes));
    }
  }
  for (; i < c.width; i += 2 * kLanes) put(i, FoldEdge<Fn>(c, i), FoldEdge<Fn>(c, i + kLanes));
}

// Makes the line of a row of y.
template <PoolFn Fn, int kRows>
SRT_INLINE void FillLine(const PoolWindow& w, const PoolRows& rows, const PoolColumns& c,
                         float* line) {
  const int64_t stride = w.stride[1];
  const int64_t pad = w.pad_begin[1];
  if (stride == 1) {
    ForColumns<Fn, kRows>(c, [&](int64_t i, Vec a) { StoreU(line + pad + i, a); });
  } else if (stride == 2) {
    float* even = line + PoolLineIndex(w, rows, pad);
    float* odd = line + PoolLineIndex(w, rows, pad + 1);
    ForColumnPairs<Fn, kRows>(c, [&](int64_t i, Vec a, Vec b) {
      StoreU(even + i / 2, Evens(a, b));
      StoreU(odd + i / 2, Odds(a, b));
    });
  } else {
    int64_t phase = pad % stride;
    int64_t quotient = pad / stride;
    ForColumns<Fn, kRows>(c, [&](int64_t i, Vec a) {
      float lane[Vec::kLanes];
      StoreU(lane, a);
      for (int64_t l = 0; l < Vec::kLanes && i + l < c.width; ++l) {
        line[phase * rows.phase_floats + quotient] = lane[l];
        if (++phase == stride) {
          phase = 0;
          ++quotient;
        }
      }
    });
  }
}

// The rows of x under row `oh` of y, and the height that an average divides by.
struct PoolWindowRows {
  int64_t first;   // in x
  int64_t rows;    // inside x
  int64_t height;  // rows that count
};

SRT_INLINE PoolWindowRows RowsUnder(const PoolWindow& w, bool count_include_pad, int64_t oh) {
  const int64_t top = oh * w.stride[0] - w.pad_begin[0];
  const int64_t step = w.dilation[0];
  const int64_t skipped = top < 0 ? (-top + step - 1) / step : 0;
  int64_t last = w.kernel[0];
  while (last > skipped && top + (last - 1) * step >= w.in[0]) --last;
  int64_t height = last - skipped;
  if (count_include_pad) {
    height = w.kernel[0];
    while (height > 0 && top + (height - 1) * step >= w.in[0] + w.pad_end[0]) --height;
  }
  return {top + skipped * step, last - skipped, height};
}

// What the sums of a row are divided by: height * counts[ow]. `scales`, unless it is nullptr, holds
// the reciprocals: [out width] each.
struct PoolDivisors {
  const float* counts;
  const float* scales;
  float height;
};

// Stores columns [ow, ow + lanes) of a row of y.
template <PoolFn Fn>
SRT_INLINE void StorePooled(Vec acc, const PoolDivisors& by, int64_t ow, int64_t width, float* y) {
  if (Fn == PoolFn::kAverage && by.scales != nullptr) {
    acc = Mul(acc, LoadU(by.scales + ow));
  } else if (Fn == PoolFn::kAverage) {
    acc = Div(acc, Max(Mul(Set1(by.height), LoadU(by.counts + ow)), Set1(1.0f)));
  }
  if (ow + Vec::kLanes <= width) {
    StoreU(y + ow, acc);
  } else {
    StoreMask(y + ow, FirstN(static_cast<int>(width - ow)), acc);
  }
}

// Makes a row of y from its line. `taps`: [kernel width]; kTaps: their number, or 0 for any.
template <PoolFn Fn, int kTaps>
SRT_INLINE void FoldLine(const PoolWindow& w, const float* line, const int64_t* taps,
                         const PoolDivisors& by, float* y) {
  const int64_t n = kTaps == 0 ? w.kernel[1] : kTaps;
  for (int64_t ow = 0; ow < w.out[1]; ow += Vec::kLanes) {
    Vec acc = LoadU(line + taps[0] + ow);
    for (int64_t k = 1; k < n; ++k) acc = PoolStep<Fn>(acc, LoadU(line + taps[k] + ow));
    StorePooled<Fn>(acc, by, ow, w.out[1], y);
  }
}

template <PoolFn Fn>
SRT_INLINE Vec FoldPair(Vec a, Vec b) {
  return PoolStep<Fn>(Evens(a, b), Odds(a, b));
}

// Makes a row of y whose windows are pairs of columns.
template <PoolFn Fn, int kRows>
SRT_INLINE void FoldPairs(const PoolWindow& w, const PoolColumns& c, const PoolDivisors& by,
                          float* y) {
  ForColumnPairs<Fn, kRows>(c, [&](int64_t i, Vec a, Vec b) {
    if (i / 2 >= w.out[1]) return;
    StorePooled<Fn>(FoldPair<Fn>(a, b), by, i / 2, w.out[1], y);
  });
}

// The same where they are four columns.
template <PoolFn Fn>
SRT_INLINE void FoldFours(const PoolWindow& w, const PoolColumns& c, const PoolDivisors& by,
                          float* y) {
  constexpr int64_t kLanes = Vec::kLanes;
  int64_t ow = 0;
  if (c.rows != 0) {
    for (int64_t i = 0; ow < w.out[1] && i + 4 * kLanes <= c.width; i += 4 * kLanes) {
      const Vec first = FoldPair<Fn>(FoldColumns<Fn, 0>(c, i), FoldColumns<Fn, 0>(c, i + kLanes));
      const Vec second = FoldPair<Fn>(FoldColumns<Fn, 0>(c, i + 2 * kLanes),
                                      FoldColumns<Fn, 0>(c, i + 3 * kLanes));
      StorePooled<Fn>(FoldPair<Fn>(first, second), by, ow, w.out[1], y);
      ow += kLanes;
    }
  }
  for (; ow < w.out[1]; ow += kLanes) {
    const int64_t i = 4 * ow;
    const Vec first = FoldPair<Fn>(FoldEdge<Fn>(c, i), FoldEdge<Fn>(c, i + kLanes));
    const Vec second =
        FoldPair<Fn>(FoldEdge<Fn>(c, i + 2 * kLanes), FoldEdge<Fn>(c, i + 3 * kLanes));
    StorePooled<Fn>(FoldPair<Fn>(first, second), by, ow, w.out[1], y);
  }
}

// `scratch`: as PoolRows says, with lines of neutral elements.
template <PoolFn Fn>
SRT_INLINE void PoolPlane(const PoolWindow& w, bool count_include_pad, const PoolRows& rows,
                          const float* x, float* y, float* scratch) {
  const int64_t* taps = reinterpret_cast<const int64_t*>(scratch + rows.tap_first);
  const int halvings = PoolHalvings(w);
  for (int64_t begin = 0; begin < w.out[0]; begin += kPoolLines) {
    const int64_t end = begin + kPoolLines < w.out[0] ? begin + kPoolLines : w.out[0];
    PoolDivisors divisors[kPoolLines];
    for (int64_t oh = begin; oh < end; ++oh) {
      const PoolWindowRows under = RowsUnder(w, count_include_pad, oh);
      const PoolColumns c = {x + under.first * w.in[1], under.rows, w.dilation[0] * w.in[1],
                             w.in[1]};
      PoolDivisors& by = divisors[oh - begin];
      by = {scratch + rows.count_first,
            under.height == w.kernel[0] ? scratch + rows.scale_first : nullptr,
            static_cast<float>(under.height)};
      float* line = scratch + (oh - begin) * rows.line_floats;
      float* to = y + oh * w.out[1];
      if (halvings == 2) {
        FoldFours<Fn>(w, c, by, to);
      } else if (halvings == 1 && c.rows == 2) {
        FoldPairs<Fn, 2>(w, c, by, to);
      } else if (halvings == 1) {
        FoldPairs<Fn, 0>(w, c, by, to);
      } else if (c.rows == 3) {
        FillLine<Fn, 3>(w, rows, c, line);
      } else {
        FillLine<Fn, 0>(w, rows, c, line);
      }
    }
    for (int64_t oh = begin; oh < end && halvings == 0; ++oh) {
      const float* line = scratch + (oh - begin) * rows.line_floats;
      float* to = y + oh * w.out[1];
      if (w.kernel[1] == 3) {
        FoldLine<Fn, 3>(w, line, taps, divisors[oh - begin], to);
      } else {
        FoldLine<Fn, 0>(w, line, taps, divisors[oh - begin], to);
      }
    }
  }
}

// Whether every window is two rows by two columns of its own, all inside.
SRT_INLINE bool PoolIsTwoByTwo(const PoolWindow& w) {
  for (int d = 0; d < 2; ++d) {
    if (w.kernel[d] != 2 || w.stride[d] != 2 || w.dilation[d] != 1 || w.pad_begin[d] != 0 ||
        w.out[d] * 2 > w.in[d]) {
      return false;
    }
  }
  return true;
}

// A column of output vectors; their masks hold for every row. kSecond: they reach beyond the first
// input vector.
template <PoolFn Fn, bool kSecond>
SRT_INLINE void PoolTwoByTwo(const PoolWindow& w, const float* x, float* y, int64_t ow) {
  const int64_t left = w.in[1] - 2 * ow;
  const Mask first = FirstN(left < Vec::kLanes ? static_cast<int>(left) : Vec::kLanes);
  const int64_t rest = left - Vec::kLanes;
  const Mask second = FirstN(rest < Vec::kLanes ? static_cast<int>(rest) : Vec::kLanes);
  const int64_t columns = w.out[1] - ow;
  const Mask tail = FirstN(columns < Vec::kLanes ? static_cast<int>(columns) : Vec::kLanes);
  // In registers: the compiler must think that a store to y may change w.
  const int64_t in_row = w.in[1];
  const int64_t out_row = w.out[1];
  const int64_t rows = w.out[0];
  const float* p = x + 2 * ow;
  float* to = y + ow;
  for (int64_t oh = 0; oh < rows; ++oh, p += 2 * in_row, to += out_row) {
    const float* q = p + in_row;
    const Vec a = PoolStep<Fn>(LoadMask(p, first), LoadMask(q, first));
    const Vec b =
        kSecond ? PoolStep<Fn>(LoadMask(p + Vec::kLanes, second), LoadMask(q + Vec::kLanes, second))
                : a;
    Vec pooled = PoolStep<Fn>(Evens(a, b), Odds(a, b));
    if (Fn == PoolFn::kAverage) pooled = Mul(pooled, Set1(0.25f));
    StoreMask(to, tail, pooled);
  }
}

template <PoolFn Fn>
SRT_INLINE void PoolPlaneTwoByTwo(const PoolWindow& w, const float* x, float* y) {
  for (int64_t ow = 0; ow < w.out[1]; ow += Vec::kLanes) {
    if (2 * (w.out[1] - ow) > Vec::kLanes) {
      PoolTwoByTwo<Fn, true>(w, x, y, ow);
    } else {
      PoolTwoByTwo<Fn, false>(w, x, y, ow);
    }
  }
}

static void Pool(const void* args_block, void* const* io, int64_t begin, int64_t end,
                 void* scratch) {
  const PoolArgs& args = *static_cast<const PoolArgs*>(args_block);
  const PoolWindow& w = args.window;
  if (PoolIsTwoByTwo(w)) {
    const bool max = args.fn == PoolFn::kMax;
    for (int64_t p = begin; p < end;) {
      // The planes of one image: a division each would take as long as a small plane.
      const float* x = static_cast<const float*>(io[0]) + args.pairs.XOffset(p);
      float* y = static_cast<float*>(io[1]) + args.pairs.YOffset(p);
      const int64_t left = args.pairs.channels - p % args.pairs.channels;
      const int64_t stop = p + left < end ? p + left : end;
      for (; p < stop; ++p, x += args.pairs.x_plane, y += args.pairs.y_plane) {
        if (max) {
          PoolPlaneTwoByTwo<PoolFn::kMax>(w, x, y);
        } else {
          PoolPlaneTwoByTwo<PoolFn::kAverage>(w, x, y);
        }
      }
    }
    return;
  }
  const PoolRows rows = PoolRowsOf(w);
  float* lines = static_cast<float*>(scratch);
  const float start = args.fn == PoolFn::kMax ? kLowest : 0.0f;
  for (int64_t i = 0; i < rows.count_first; ++i) lines[i] = start;
  int64_t* taps = reinterpret_cast<int64_t*>(lines + rows.tap_first);
  for (int64_t k = 0; k < w.kernel[1]; ++k) {
    taps[k] = PoolLineIndex(w, rows, k * w.dilation[1]);
  }
  float* counts = lines + rows.count_first;
  float* scales = lines + rows.scale_first;
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
    scales[ow] = 1.0f / static_cast<float>(count == 0 ? 1 : count * w.kernel[0]);
  }
  for (int64_t p = begin; p < end; ++p) {
    const float* x = static_cast<const float*>(io[0]) + args.pairs.XOffset(p);
    float* y = static_cast<float*>(io[1]) + args.pairs.YOffset(p);
    if (args.fn == PoolFn::kMax) {
      PoolPlane<PoolFn::kMax>(w, false, rows, x, y, lines);
    } else {
      PoolPlane<PoolFn::kAverage>(w, args.count_include_pad, rows, x, y, lines);
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
    const float* plane = x + args.pairs.XOffset(p);
    float* to = y + args.pairs.YOffset(p);
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
