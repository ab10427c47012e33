// Linear resize over Vec: rows are stretched once each, then blended in pairs.
#pragma once

#include "kernels/define.h"
#include "kernels/resize/bands.h"
#include "kernels/resize/resize.h"
#include "kernels/resize/window.h"

namespace sparsert {
namespace SRT_ISA {

// to[i] = x[low[i]] * (1 - weight[i]) + x[high[i]] * weight[i]. `to` has room after its end.
SRT_INLINE void StretchRow(const ResizeArgs& args, const float* x, float* to) {
  const int64_t n = args.out[1];
  for (int64_t i = 0; i < n; i += Vec::kLanes) {
    const int32_t* low = args.low[1] + i;
    const int32_t* high = args.high[1] + i;
    Vec a;
    Vec b;
    if (args.columns == ResizeColumns::kClimbing) {
      int32_t first = *low;
      const Vec from = LoadWindow(x, args.in[1], &first);
      a = PickLanes(from, low, first);
      b = PickLanes(from, high, first);
    } else {
      const Mask m = FirstN(n - i < Vec::kLanes ? static_cast<int>(n - i) : Vec::kLanes);
      a = GatherMask(x, low, m);
      b = GatherMask(x, high, m);
    }
    const Vec w = LoadU(args.weight[1] + i);
    StoreU(to + i, Fma(b, w, Mul(a, Sub(Set1(1.0f), w))));
  }
}

SRT_INLINE void BlendRows(const float* a, const float* b, float weight, float* y, int64_t n) {
  const Vec wb = Set1(weight);
  const Vec wa = Set1(1.0f - weight);
  for (int64_t i = 0; i < n; i += Vec::kLanes) {
    const Mask m = FirstN(n - i < Vec::kLanes ? static_cast<int>(n - i) : Vec::kLanes);
    Vec r = LoadMask(a + i, m);
    if (weight != 0.0f) r = Fma(LoadMask(b + i, m), wb, Mul(r, wa));
    StoreMask(y + i, m, r);
  }
}

SRT_INLINE void ResizeBand(const ResizeArgs& args, const float* x, float* y, int64_t first,
                           int64_t last, float* scratch) {
  float* rows[2] = {scratch, scratch + args.out[1] + kRowRoom};
  int64_t held[2] = {-1, -1};  // rows of x that they hold, stretched
  for (int64_t h = first; h < last; ++h) {
    const int64_t need[2] = {args.low[0][h], args.high[0][h]};
    const float* have[2];
    for (int k = 0; k < 2; ++k) {
      if (k == 1 && (need[1] == need[0] || args.weight[0][h] == 0.0f)) {
        have[1] = have[0];
        continue;
      }
      int slot = held[1] == need[k] ? 1 : 0;
      if (held[slot] != need[k]) {
        slot = held[0] == need[1 - k] ? 1 : 0;
        held[slot] = need[k];
        StretchRow(args, x + need[k] * args.x_row, rows[slot]);
      }
      have[k] = rows[slot];
    }
    BlendRows(have[0], have[1], args.weight[0][h], y + h * args.y_row, args.out[1]);
  }
}

// One element of every row of x, weighted: the rows that y's row is made of.
SRT_INLINE void BlendTaps(const ResizeAxisArgs& args, int64_t i, const float* x, float* y) {
  for (int64_t at = 0; at < args.inner; at += Vec::kLanes) {
    const int64_t left = args.inner - at;
    const Mask m = FirstN(left < Vec::kLanes ? static_cast<int>(left) : Vec::kLanes);
    Vec sum = Set1(args.base[i]);
    for (int64_t t = 0; t < args.taps; ++t) {
      const float w = args.weight[t * args.stride + i];
      if (w == 0.0f) continue;
      const float* row = x + args.index[t * args.stride + i] * args.inner;
      sum = Fma(LoadMask(row + at, m), Set1(w), sum);
    }
    StoreMask(y + at, m, sum);
  }
}

// A row of x becomes one of y.
SRT_INLINE void GatherTaps(const ResizeAxisArgs& args, const float* x, float* y) {
  for (int64_t i = 0; i < args.out; i += Vec::kLanes) {
    const int64_t left = args.out - i;
    const Mask m = FirstN(left < Vec::kLanes ? static_cast<int>(left) : Vec::kLanes);
    Vec sum = LoadU(args.base + i);
    for (int64_t t = 0; t < args.taps; ++t) {
      const Vec w = LoadU(args.weight + t * args.stride + i);
      const Vec v = GatherMask(x, args.index + t * args.stride + i, m);
      sum = Fma(Select(Equal(w, Zero()), Zero(), v), w, sum);
    }
    StoreMask(y + i, m, sum);
  }
}

static void ResizeAxis(const void* args_block, void* const* io, int64_t begin, int64_t end, void*) {
  const ResizeAxisArgs& args = *static_cast<const ResizeAxisArgs*>(args_block);
  const float* x = static_cast<const float*>(io[0]);
  float* y = static_cast<float*>(io[1]);
  for (int64_t item = begin; item < end; ++item) {
    if (args.inner == 1) {
      GatherTaps(args, x + item * args.in, y + item * args.out);
    } else {
      const int64_t outer = item / args.out;
      BlendTaps(args, item % args.out, x + outer * args.in * args.inner, y + item * args.inner);
    }
  }
}

static void ResizeLinear(const void* args_block, void* const* io, int64_t begin, int64_t end,
                         void* scratch) {
  const ResizeArgs& args = *static_cast<const ResizeArgs*>(args_block);
  const float* x = static_cast<const float*>(io[0]);
  float* y = static_cast<float*>(io[1]);
  const int64_t bands = BandsOf(args);
  for (int64_t item = begin; item < end; ++item) {
    const int64_t first = item % bands * kBandRows;
    int64_t last = first + kBandRows;
    if (last > args.out[0]) last = args.out[0];
    int64_t left = item / bands;
    const Loop<2>& planes = args.planes;
    int64_t from = left % planes.row * planes.row_strides[1];
    int64_t to = left % planes.row * planes.row_strides[0];
    left /= planes.row;
    for (int d = planes.rank - 1; d >= 0; --d) {
      from += left % planes.dims[d] * planes.strides[1][d];
      to += left % planes.dims[d] * planes.strides[0][d];
      left /= planes.dims[d];
    }
    ResizeBand(args, x + from, y + to, first, last, static_cast<float*>(scratch));
  }
}

}  // namespace SRT_ISA
}  // namespace sparsert
