// Depthwise convolution row by row for windows of any size, as rows.h does it for small square
// ones: a few rows of the kernel at a time, whose weights stay in registers beside a block's sums.
// Strides of 1, then with any dilation, or of 2. Included once per instruction set, after its
// vec_*.h, with SRT_ISA defined.
#pragma once

#include "kernels/dwconv/rows.h"

namespace sparsert {
namespace SRT_ISA {

// Rows of the kernel at a time, for so many rows of the output.
template <int R>
constexpr int kTapRows = !Vec::kShortCode ? 4
                         : R > 1          ? 2
                                          : 1;

// Bits of the i < 16 with 0 <= first + i * step < size.
SRT_INLINE uint32_t RowsInside(int64_t first, int64_t step, int64_t size) {
  if (step == 1) return BitsInside(first, size);
  const int64_t begin = first < 0 ? (step - 1 - first) / step : 0;
  const int64_t end = size > first ? (size - first + step - 1) / step : 0;
  return BitsInside(-begin, end - begin);
}

// A block: some rows of the output, `dilation_h` apart, and a vector of columns.
struct WindowBlock {
  int64_t oh;    // the first row
  int64_t ow;    // the first column
  int64_t left;  // what its first tap reads, a column of the input
  int columns;   // that are written
  Mask tail;     // these columns
};

// Adds kTaps successive columns of kHeight rows of the kernel from tap (ky, kx) on. kTaps is 1, or
// 2 of stride 2, which read the same two vectors.
template <int S, int R, Reads kReads, int kHeight, int kTaps>
SRT_INLINE void AddTaps(const DwconvArgs& a, const DwconvPlane& plane, const WindowBlock& b,
                        int64_t ky, int64_t kx, uint32_t rows, Vec (&acc)[R]) {
  constexpr bool kLower = kReads == Reads::kLower;
  constexpr int kLanes = kLower ? Vec::kLowerLanes : Vec::kLanes;
  constexpr int kRowsIn = (R - 1) * S + kHeight;
  Vec w[kTaps][kHeight];
#pragma GCC unroll 2
  for (int t = 0; t < kTaps; ++t) {
#pragma GCC unroll 4
    for (int i = 0; i < kHeight; ++i) {
      w[t][i] = Set1(plane.w[(ky + i) * a.kernel_w + kx + t]);
      KeepInRegister(&w[t][i]);
    }
  }
  const int64_t column = b.left + kx * a.dilation_w;
  const Mask mask = MaskFromBits(BitsInside(column, a.in_w));
  const Mask behind = MaskFromBits(BitsInside(column + kLanes, a.in_w));
  __asm__ volatile("" : "+r"(rows));  // else each row's bit is kept in memory
  const float* row = plane.x + (b.oh * S - a.pad_h + ky * a.dilation_h) * a.in_w + column;
#pragma GCC unroll 16
  for (int i = 0; i < kRowsIn; ++i) {
    if (i > 0) StepDown(a.dilation_h * a.in_w, &row);
    if ((rows >> i & 1) == 0) continue;
    Vec x[kTaps];
    x[0] = LoadColumns<kReads>(row, mask);
    if constexpr (S == 2) {
      const Vec first = x[0];
      const Vec second = LoadColumns<kReads>(row + kLanes, behind);
      x[0] = kLower ? EvensLower(first, second) : Evens(first, second);
      if constexpr (kTaps == 2) x[1] = kLower ? OddsLower(first, second) : Odds(first, second);
    }
#pragma GCC unroll 2
    for (int t = 0; t < kTaps; ++t) {
#pragma GCC unroll 8
      for (int o = 0; o < R; ++o) {
        const int tap = i - o * S;
        if (tap >= 0 && tap < kHeight) acc[o] = FmaColumns<kReads>(w[t][tap], x[t], acc[o]);
      }
    }
  }
}

// Adds `height` rows of the kernel from row ky on, kHeight at most.
template <int S, int R, Reads kReads, int kHeight>
SRT_INLINE void AddTapRows(const DwconvArgs& a, const DwconvPlane& plane, const WindowBlock& b,
                           int64_t ky, int64_t height, Vec (&acc)[R]) {
  if constexpr (kHeight > 1) {
    if (height < kHeight) {
      AddTapRows<S, R, kReads, kHeight - 1>(a, plane, b, ky, height, acc);
      return;
    }
  }
  const int64_t ih = b.oh * S - a.pad_h + ky * a.dilation_h;
  const uint32_t rows = RowsInside(ih, a.dilation_h, a.in_h);
  if (rows == 0) return;
  int64_t kx = 0;
  if constexpr (S == 2 && !Vec::kShortCode) {
    for (; kx + 2 <= a.kernel_w; kx += 2) {
      AddTaps<S, R, kReads, kHeight, 2>(a, plane, b, ky, kx, rows, acc);
    }
  }
  for (; kx < a.kernel_w; ++kx) {
    AddTaps<S, R, kReads, kHeight, 1>(a, plane, b, ky, kx, rows, acc);
  }
}

template <int S, int R, Reads kReads>
void ComputeBlock(const DwconvArgs& a, const DwconvPlane& plane, float bias, const WindowBlock& b) {
  Vec acc[R];
#pragma GCC unroll 8
  for (int i = 0; i < R; ++i) acc[i] = Set1(bias);
  for (uint32_t ky = 0, left = static_cast<uint32_t>(a.kernel_h), height; left > 0;
       ky += height, left -= height) {
    const uint32_t chunks = (left + kTapRows<R> - 1) / kTapRows<R>;
    height = (left + chunks - 1) / chunks;
    AddTapRows<S, R, kReads, kTapRows<R>>(a, plane, b, ky, height, acc);
  }
  EndBlock<kReads>(a, plane, b.oh * a.out_w + b.ow, a.dilation_h * a.out_w, b.columns, b.tail, acc);
}

// R rows of the output from oh on, all columns.
template <int S, int R>
void WindowRowBlock(const DwconvArgs& a, bool overlaps, const DwconvPlane& plane, float bias,
                    int64_t oh) {
  const int64_t reach = S == 2 ? Vec::kLanes + a.kernel_w : (a.kernel_w - 1) * a.dilation_w;
  for (int64_t ow = 0; ow < a.out_w; ow += Vec::kLanes) {
    WindowBlock b;
    b.oh = oh;
    // Where storing a part of a vector is slow, the last one overlaps the one before.
    b.ow = overlaps && ow + Vec::kLanes > a.out_w ? a.out_w - Vec::kLanes : ow;
    b.left = b.ow * S - a.pad_w;
    b.columns = a.out_w - b.ow < Vec::kLanes ? static_cast<int>(a.out_w - b.ow) : Vec::kLanes;
    b.tail = FirstN(b.columns);
    if (b.columns == Vec::kLanes && b.left >= 0 && b.left + Vec::kLanes + reach <= a.in_w) {
      ComputeBlock<S, R, Reads::kWhole>(a, plane, bias, b);
    } else if (b.columns <= Vec::kLowerLanes) {
      constexpr Reads kReads = Vec::kLowerLanes > 0 ? Reads::kLower : Reads::kMasked;
      ComputeBlock<S, R, kReads>(a, plane, bias, b);
    } else {
      constexpr int kAtOnce = Vec::kShortCode ? 1 : R;
      for (int i = 0; i < R; i += kAtOnce, b.oh += kAtOnce * a.dilation_h) {
        ComputeBlock<S, kAtOnce, Reads::kMasked>(a, plane, bias, b);
      }
    }
  }
}

// Some output rows of one plane. `in_place`: the residual is overwritten, so that no element may be
// computed twice.
template <int S>
void WindowRows(const DwconvArgs& a, RowRange range, bool in_place, const DwconvPlane& plane,
                float bias) {
  const bool overlaps = Vec::kSlowPartialStores && !in_place && a.out_w >= Vec::kLanes;
  constexpr int kRows = Vec::kShortCode || S == 2 ? 4 : 7;
  const int64_t step = a.dilation_h;
  // Rows `step` apart share those of the input.
  for (int64_t phase = 0; phase < step; ++phase) {
    int64_t oh = range.begin + phase;
    for (; oh + (kRows - 1) * step < range.end; oh += kRows * step) {
      WindowRowBlock<S, kRows>(a, overlaps, plane, bias, oh);
    }
    if (kRows > 4 && oh + 3 * step < range.end) {
      WindowRowBlock<S, 4>(a, overlaps, plane, bias, oh);
      oh += 4 * step;
    }
    if (!Vec::kShortCode && oh + step < range.end) {
      WindowRowBlock<S, 2>(a, overlaps, plane, bias, oh);
      oh += 2 * step;
    }
    for (; oh < range.end; oh += step) WindowRowBlock<S, 1>(a, overlaps, plane, bias, oh);
  }
}

}  // namespace SRT_ISA
}  // namespace sparsert
