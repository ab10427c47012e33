// Depthwise convolution row by row: a block of output rows at a time, one vector wide, so that each
// loaded input vector serves every output row that it touches. For square kernels of 3 or 5, equal
// strides of 1 or 2, no dilation.
// Included once per instruction set, after its vec_*.h, with SRT_ISA defined.
#pragma once

#include "kernels/dwconv/dwconv.h"
#include "simd/vec_math.h"

namespace sparsert {
namespace SRT_ISA {

// Bits of the lanes l with 0 <= first + step * l < size.
SRT_INLINE uint32_t LanesInside(int64_t first, int64_t step, int64_t size) {
  int64_t low = first >= 0 ? 0 : (-first + step - 1) / step;
  int64_t high = size - first <= 0 ? 0 : (size - 1 - first) / step + 1;
  if (low > Vec::kLanes) low = Vec::kLanes;
  if (high > Vec::kLanes) high = Vec::kLanes;
  if (high <= low) return 0;
  return ((uint32_t{1} << (high - low)) - 1) << low;
}

// Which floats of an input row one vector of output columns may read, and which it writes.
template <int K, int S>
struct ColumnMasks {
  Mask lo[K];
  Mask hi[K];  // stride 2: of the second vector of a pair
  Mask tail;
  bool whole;  // every lane of everything is inside

  void Set(const DwconvArgs& a, int64_t ow) {
    const int64_t left = ow * S - a.pad_w;
#pragma GCC unroll 5
    for (int k = 0; k < K; ++k) {
      lo[k] = MaskFromBits(LanesInside(left + k, 1, a.in_w));
      hi[k] = MaskFromBits(LanesInside(left + k + Vec::kLanes, 1, a.in_w));
    }
    const int64_t columns = a.out_w - ow;
    tail = FirstN(columns < Vec::kLanes ? static_cast<int>(columns) : Vec::kLanes);
    whole = columns >= Vec::kLanes && left >= 0 && left + K - 1 + S * Vec::kLanes <= a.in_w;
  }
};

template <bool kWhole>
SRT_INLINE Vec LoadColumns(const float* p, Mask m) {
  return kWhole ? LoadU(p) : LoadMask(p, m);
}

// What the K taps of a row read: x[k][l] = p[k + S * l].
template <int K, int S, bool kWhole>
SRT_INLINE void LoadRow(const float* p, const ColumnMasks<K, S>& m, Vec (&x)[K]) {
  if (S == 1) {
#pragma GCC unroll 5
    for (int k = 0; k < K; ++k) x[k] = LoadColumns<kWhole>(p + k, m.lo[k]);
    return;
  }
#pragma GCC unroll 5
  for (int k = 0; k < K; k += 2) {
    const Vec first = LoadColumns<kWhole>(p + k, m.lo[k]);
    const Vec second = LoadColumns<kWhole>(p + k + Vec::kLanes, m.hi[k]);
    x[k] = Evens(first, second);
    if (k + 1 < K) x[k + 1] = Odds(first, second);
  }
}

// Whether the registers hold a channel's weights beside a block's sums.
template <int K>
constexpr bool kWeightsStay = K == 3 && Vec::kRegisters >= 32;

// Output rows [oh, oh + R) of the vector of columns at ow. `weights`: `w`, if they stay.
template <int K, int S, int R, bool kWhole>
SRT_INLINE void DwconvRowBlock(const DwconvArgs& a, const float* x, const float* zeros,
                               const float* w, const Vec (&weights)[9], Vec bias, int64_t oh,
                               int64_t ow, const ColumnMasks<K, S>& m, const float* r, float* y) {
  constexpr int kRowsIn = (R - 1) * S + K;
  Vec acc[R];
#pragma GCC unroll 8
  for (int i = 0; i < R; ++i) acc[i] = bias;
  const int64_t left = ow * S - a.pad_w;
#pragma GCC unroll 16
  for (int i = 0; i < kRowsIn; ++i) {
    const int64_t ih = oh * S - a.pad_h + i;
    const float* row = ih >= 0 && ih < a.in_h ? x + ih * a.in_w + left : zeros;
    Vec columns[K];
    LoadRow<K, S, kWhole>(row, m, columns);
#pragma GCC unroll 5
    for (int k = 0; k < K; ++k) {
#pragma GCC unroll 8
      for (int o = 0; o < R; ++o) {
        const int tap = i - o * S;
        if (tap < 0 || tap >= K) continue;
        const int at = tap * K + k;
        acc[o] = Fma(kWeightsStay<K> ? weights[at % 9] : Set1(w[at]), columns[k], acc[o]);
      }
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < R; ++i) {
    if (r != nullptr)
      acc[i] = Add(acc[i], LoadColumns<kWhole>(r + (oh + i) * a.out_w + ow, m.tail));
  }
  if (a.act.fn == UnaryFn::kRelu) {
#pragma GCC unroll 8
    for (int i = 0; i < R; ++i) acc[i] = Max(Zero(), acc[i]);
  } else if (a.act.fn == UnaryFn::kClip) {
#pragma GCC unroll 8
    for (int i = 0; i < R; ++i) acc[i] = Min(Set1(a.act.beta), Max(Set1(a.act.alpha), acc[i]));
  } else if (a.act.fn != UnaryFn::kNone) {
    ApplyActivation(a.act, acc, R);
  }
#pragma GCC unroll 8
  for (int i = 0; i < R; ++i) {
    float* to = y + (oh + i) * a.out_w + ow;
    if (kWhole) {
      StoreU(to, acc[i]);
    } else {
      StoreMask(to, m.tail, acc[i]);
    }
  }
}

struct RowRange {
  int64_t begin;
  int64_t end;
};

// Some output rows of one vector of columns.
template <int K, int S, bool kWhole>
SRT_INLINE void DwconvColumnRows(const DwconvArgs& a, RowRange rows, const float* x,
                                 const float* zeros, const float* w, const Vec (&weights)[9], Vec b,
                                 int64_t ow, const ColumnMasks<K, S>& m, const float* r, float* y) {
  // Rows of a block: as many as registers hold, and a divisor of the sizes in use (7, 14, 28, ...).
  constexpr int kRows = S == 1 && kWeightsStay<K> ? 7 : S == 1 || kWeightsStay<K> ? 4 : 2;
  int64_t oh = rows.begin;
  for (; oh + kRows <= rows.end; oh += kRows) {
    DwconvRowBlock<K, S, kRows, kWhole>(a, x, zeros, w, weights, b, oh, ow, m, r, y);
  }
  if (kRows > 4 && oh + 4 <= rows.end) {
    DwconvRowBlock<K, S, 4, kWhole>(a, x, zeros, w, weights, b, oh, ow, m, r, y);
    oh += 4;
  }
  if (kRows > 2 && oh + 2 <= rows.end) {
    DwconvRowBlock<K, S, 2, kWhole>(a, x, zeros, w, weights, b, oh, ow, m, r, y);
    oh += 2;
  }
  if (oh < rows.end) DwconvRowBlock<K, S, 1, kWhole>(a, x, zeros, w, weights, b, oh, ow, m, r, y);
}

// Some output rows of one plane. `zeros`: a row of zeros that any tap of any column may read.
template <int K, int S>
void DwconvPlaneRows(const DwconvArgs& a, RowRange rows, const float* x, const float* zeros,
                     const float* w, float bias, const float* r, float* y,
                     const ColumnMasks<K, S>* masks, int64_t known_masks) {
  const Vec b = Set1(bias);
  Vec weights[9];
  if (kWeightsStay<K>) {
#pragma GCC unroll 9
    for (int i = 0; i < 9; ++i) {
      weights[i] = Set1(w[i]);
      KeepInRegister(&weights[i]);
    }
  }
  for (int64_t ow = 0; ow < a.out_w; ow += Vec::kLanes) {
    const int64_t vec = ow / Vec::kLanes;
    ColumnMasks<K, S> m;  // a copy: what is read through a reference is loaded at every use
    if (vec < known_masks) {
      m = masks[vec];
    } else {
      m.Set(a, ow);
    }
    if (m.whole) {
      DwconvColumnRows<K, S, true>(a, rows, x, zeros, w, weights, b, ow, m, r, y);
    } else {
      DwconvColumnRows<K, S, false>(a, rows, x, zeros, w, weights, b, ow, m, r, y);
    }
  }
}

}  // namespace SRT_ISA
}  // namespace sparsert
