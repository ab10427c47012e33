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

template <int S>
SRT_INLINE Vec LoadColumns(const float* p, Mask m) {
  return S == 1 ? LoadMask(p, m) : LoadStride2Mask(p, m);
}

// Output rows [oh, oh + R) of columns [ow, ow + lanes).
template <int K, int S, int R>
SRT_INLINE void DwconvRowBlock(const DwconvArgs& a, const float* x, const float* zeros,
                               const float* w, const Vec(&bias), int64_t oh, int64_t ow,
                               const Mask (&inside)[K], Mask tail, const float* r, float* y) {
  constexpr int kRowsIn = (R - 1) * S + K;
  Vec acc[R];
#pragma GCC unroll 8
  for (int i = 0; i < R; ++i) acc[i] = bias;
  const int64_t left = ow * S - a.pad_w;
#pragma GCC unroll 16
  for (int i = 0; i < kRowsIn; ++i) {
    const int64_t ih = oh * S - a.pad_h + i;
    const float* row = ih >= 0 && ih < a.in_h ? x + ih * a.in_w + left : zeros;
#pragma GCC unroll 5
    for (int k = 0; k < K; ++k) {
      const Vec v = LoadColumns<S>(row + k, inside[k]);
#pragma GCC unroll 8
      for (int o = 0; o < R; ++o) {
        const int tap = i - o * S;
        if (tap >= 0 && tap < K) acc[o] = Fma(Set1(w[tap * K + k]), v, acc[o]);
      }
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < R; ++i) {
    const int64_t at = (oh + i) * a.out_w + ow;
    if (r != nullptr) acc[i] = Add(acc[i], LoadMask(r + at, tail));
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
  for (int i = 0; i < R; ++i) StoreMask(y + (oh + i) * a.out_w + ow, tail, acc[i]);
}

struct RowRange {
  int64_t begin;
  int64_t end;
};

// Some output rows of one plane. `zeros`: a row of zeros that any tap of any column may read.
template <int K, int S>
void DwconvPlaneRows(const DwconvArgs& a, RowRange rows, const float* x, const float* zeros,
                     const float* w, float bias, const float* r, float* y) {
  constexpr int kRows = S == 1 ? 4 : 2;
  const Vec b = Set1(bias);
  for (int64_t ow = 0; ow < a.out_w; ow += Vec::kLanes) {
    Mask inside[K];
#pragma GCC unroll 5
    for (int k = 0; k < K; ++k) {
      inside[k] = MaskFromBits(LanesInside(ow * S - a.pad_w + k, S, a.in_w));
    }
    const int64_t left = a.out_w - ow;
    const Mask tail = FirstN(left < Vec::kLanes ? static_cast<int>(left) : Vec::kLanes);
    int64_t oh = rows.begin;
    for (; oh + kRows <= rows.end; oh += kRows) {
      DwconvRowBlock<K, S, kRows>(a, x, zeros, w, b, oh, ow, inside, tail, r, y);
    }
    for (; oh < rows.end; ++oh) {
      DwconvRowBlock<K, S, 1>(a, x, zeros, w, b, oh, ow, inside, tail, r, y);
    }
  }
}

}  // namespace SRT_ISA
}  // namespace sparsert
