// The maximum of packed bytes over Vec.
// Included once per instruction set, after its vec_*.h and dot_*.h, with SRT_ISA defined.
#pragma once

#include "kernels/define.h"
#include "kernels/qpool/qpool.h"
#include "kernels/spmm/load_tap.h"

namespace sparsert {
namespace SRT_ISA {

// One plane's windows of K x K, a vector of output columns after the other, down the rows: the
// maximum of an input row over the taps is found once for all output rows that read it. Padding
// counts as 0, which is larger than no byte.
template <int K, int S>
SRT_INLINE void MaxRows(const QpoolArgs& a, const float* x, float* y) {
  constexpr int kRows = (K - 1) / S + 1;  // output rows that wait for input rows
  for (int64_t ow = 0; ow < a.out[1]; ow += Vec::kLanes) {
    const int64_t left = ow * S - a.pad_begin[1];
    Stride2Mask spread[K];
    Mask inside[K];
    for (int k = 0; k < K; ++k) {
      uint32_t bits = 0;
      for (int l = 0; l < Vec::kLanes; ++l) {
        const int64_t at = left + k + S * l;
        bits |= static_cast<uint32_t>(at >= 0 && at < a.in[1]) << l;
      }
      inside[k] = MaskFromBits(bits);
      spread[k] = SpreadMask(inside[k]);
    }
    const int64_t columns = a.out[1] - ow < Vec::kLanes ? a.out[1] - ow : Vec::kLanes;
    const Mask tail = FirstN(static_cast<int>(columns));
    Vec largest[kRows];
    for (int q = 0; q < kRows; ++q) largest[q] = Zero();
    int64_t ih = -a.pad_begin[0];
    auto read_row = [&](int k) {
      const int64_t row = ih++;
      if (row < 0 || row >= a.in[0]) return;
      const float* p = x + row * a.in[1] + left;
      Vec of_row = Zero();
#pragma GCC unroll 3
      for (int i = 0; i < K; ++i) {
        of_row = MaxBytes(of_row,
                          S == 1 ? LoadMask(p + i, inside[i]) : LoadStride2Mask(p + i, spread[i]));
      }
#pragma GCC unroll 3
      for (int q = 0; q < kRows; ++q) {
        if (k - q * S >= 0) largest[q] = MaxBytes(largest[q], of_row);
      }
    };
#pragma GCC unroll 2
    for (int k = 0; k < K - S; ++k) read_row(k);
    for (int64_t oh = 0; oh < a.out[0]; ++oh) {
#pragma GCC unroll 2
      for (int k = K - S; k < K; ++k) read_row(k);
      StoreMask(y + oh * a.out[1] + ow, tail, largest[0]);
#pragma GCC unroll 3
      for (int q = 0; q + 1 < kRows; ++q) largest[q] = largest[q + 1];
      largest[kRows - 1] = Zero();
    }
  }
}

static void QmaxPool(const void* args_block, void* const* io, int64_t begin, int64_t end, void*) {
  const QpoolArgs& a = *static_cast<const QpoolArgs*>(args_block);
  for (int64_t item = begin; item < end; ++item) {
    const int64_t image = item / a.planes;
    const int64_t plane = item % a.planes;
    const float* x = static_cast<const float*>(io[0]) + image * a.x_image + plane * a.x_plane;
    float* y = static_cast<float*>(io[1]) + image * a.y_image + plane * a.y_plane;
    if (a.by_rows) {
      switch (a.kernel[0] * 2 + a.stride[0]) {
        case 2 * 2 + 1:
          MaxRows<2, 1>(a, x, y);
          break;
        case 2 * 2 + 2:
          MaxRows<2, 2>(a, x, y);
          break;
        case 3 * 2 + 1:
          MaxRows<3, 1>(a, x, y);
          break;
        default:
          MaxRows<3, 2>(a, x, y);
          break;
      }
      continue;
    }
    const TapVec* tap = a.taps.entries;
    for (int64_t i = 0; i < a.columns; i += Vec::kLanes) {
      // Taps in the padding read 0, which is larger than no byte.
      Vec largest = Zero();
      for (int32_t t = 0; t < a.taps.taps; ++t, tap += a.taps.tile_vecs) {
        largest = MaxBytes(largest, LoadTap(x, *tap, a.taps));
      }
      const int64_t left = a.columns - i;
      StoreMask(y + i, FirstN(static_cast<int>(left < Vec::kLanes ? left : Vec::kLanes)), largest);
    }
  }
}

}  // namespace SRT_ISA
}  // namespace sparsert
