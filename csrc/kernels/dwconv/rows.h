// Depthwise convolution row by row: a block of output rows at a time, one vector wide, so that each
// loaded input vector serves every output row that it touches. For square kernels of 3 or 5, equal
// strides of 1 or 2, no dilation; windows.h has the others.
// Included once per instruction set, after its vec_*.h, with SRT_ISA defined.
#pragma once

#include "kernels/dwconv/dwconv.h"
#include "kernels/inside.h"
#include "simd/vec_math.h"

namespace sparsert {
namespace SRT_ISA {

// How a vector of output columns reads its input rows.
enum class Reads {
  kWhole,   // every float that its taps load is inside
  kMasked,  // some lie in the padding or behind the row
  kLower,   // the same, and only the lower lanes are output columns
};

template <Reads kReads>
SRT_INLINE Vec LoadColumns(const float* p, Mask m) {
  Vec v = kReads == Reads::kWhole   ? LoadU(p)
          : kReads == Reads::kLower ? LoadLowerMask(p, m)
                                    : LoadMaskInline(p, m);
  KeepInRegister(&v);
  return v;
}

// One vector of output columns, and which floats of an input row it may read.
template <int K, int S>
struct ColumnVec {
  // Input floats behind a stride-2 pair of vectors that the last lanes read.
  static constexpr int kBehind = S == 2 ? K - 2 : 0;

  int64_t ow;    // the first column
  int64_t left;  // what its first tap reads, a column of the input
  Mask masks[S == 1 ? K : 2];
  bool behind[kBehind + 1];
  int columns;  // that are written
  Mask tail;    // these columns
  bool lower;

  void Set(const DwconvArgs& a, int64_t first) {
    constexpr int kLanes = Vec::kLanes;
    ow = first;
    left = ow * S - a.pad_w;
    columns = a.out_w - ow < kLanes ? static_cast<int>(a.out_w - ow) : kLanes;
    tail = FirstN(columns);
    lower = columns <= Vec::kLowerLanes;
    if (S == 1) {
#pragma GCC unroll 5
      for (int k = 0; k < K; ++k) masks[k] = MaskFromBits(BitsInside(left + k, a.in_w));
      return;
    }
    const int lanes = lower ? Vec::kLowerLanes : kLanes;
    masks[0] = MaskFromBits(BitsInside(left, a.in_w));
    masks[1] = MaskFromBits(BitsInside(left + lanes, a.in_w));
    for (int i = 0; i < kBehind; ++i) {
      const int64_t at = left + 2 * lanes + i;
      behind[i] = at >= 0 && at < a.in_w;
    }
  }
};

// What the K taps of a row read: x[k][l] = p[k + S * l].
template <int K, int S, Reads kReads>
SRT_INLINE void LoadRow(const float* p, const ColumnVec<K, S>& c, Vec (&x)[K]) {
  if (S == 1) {
#pragma GCC unroll 5
    for (int k = 0; k < K; ++k) x[k] = LoadColumns<kReads>(p + k, c.masks[k]);
    return;
  }
  constexpr bool kLower = kReads == Reads::kLower;
  constexpr int kLanes = kLower ? Vec::kLowerLanes : Vec::kLanes;
  const Vec first = LoadColumns<kReads>(p, c.masks[0]);
  const Vec second = LoadColumns<kReads>(p + kLanes, c.masks[1]);
  x[0] = kLower ? EvensLower(first, second) : Evens(first, second);
  x[1] = kLower ? OddsLower(first, second) : Odds(first, second);
  p += 2 * kLanes;
#pragma GCC unroll 3
  for (int i = 0; i + 2 < K; ++i) {
    const float next = kReads == Reads::kWhole || c.behind[i] ? p[i] : 0.0f;
    x[i + 2] = kLower ? ShiftInLower(x[i], next) : ShiftIn(x[i], next);
  }
}

// Whether the registers hold a channel's weights beside a block's sums.
template <int K>
constexpr bool kWeightsStay = K == 3 && Vec::kRegisters >= 32;

// One channel's plane.
struct DwconvPlane {
  const float* x;
  const float* w;
  const float* r;  // nullptr: no residual
  float* y;
};

template <Reads kReads>
SRT_INLINE Vec FmaColumns(Vec w, Vec x, Vec acc) {
  return kReads == Reads::kLower ? FmaLower(w, x, acc) : Fma(w, x, acc);
}

// To the next row; one pointer instead of as many as there are rows.
SRT_INLINE void StepDown(int64_t step, const float** row) {
  *row += step;
  __asm__("" : "+r"(*row));
}

// Adds the residual, applies the activation and stores rows of Y, from offset `at` on in its plane
// and `step` floats apart.
template <Reads kReads, int R>
SRT_INLINE void EndBlock(const DwconvArgs& a, const DwconvPlane& plane, int64_t at, int64_t step,
                         int columns, Mask tail, Vec (&acc)[R]) {
  if (plane.r != nullptr) {
    const float* r = plane.r + at;
#pragma GCC unroll 8
    for (int i = 0; i < R; ++i) {
      const float* row_r = r + i * step;
      acc[i] = Add(acc[i], kReads == Reads::kWhole ? LoadU(row_r) : LoadMask(row_r, tail));
    }
  }
  float* y = plane.y + at;
  if (kReads == Reads::kWhole || columns == Vec::kLanes) {
    const bool activated = ActivateInRegisters(a.act, acc);
#pragma GCC unroll 8
    for (int i = 0; i < R; ++i) StoreU(y + i * step, acc[i]);
    if (!activated) SRT_VEC_ISA::ApplyToVectors(a.act, y, R, step);
  } else {
    ActivateRegisters(a.act, acc);
#pragma GCC unroll 8
    for (int i = 0; i < R; ++i) StoreFirst(y + i * step, columns, tail, acc[i]);
  }
}

// Output rows [oh, oh + R) of a vector of columns. kInside: no input row lies in the padding.
template <int K, int S, int R, Reads kReads, bool kInside>
SRT_INLINE void DwconvBlock(const DwconvArgs& a, const DwconvPlane& plane, const Vec (&weights)[9],
                            Vec bias, int64_t oh, const ColumnVec<K, S>& c) {
  constexpr int kRowsIn = (R - 1) * S + K;
  const int64_t ih = oh * S - a.pad_h;
  const uint32_t inside = kInside ? 0 : BitsInside(ih, a.in_h);  // bit i: input row i
  const float* row = plane.x + ih * a.in_w + c.left;
  // The rows that the next block does not share are asked for: there are more streams of them than
  // a hardware prefetcher follows.
  constexpr bool kFetch = !Vec::kShortCode;
  const int64_t ahead = R * S * a.in_w;
  Vec acc[R];
#pragma GCC unroll 8
  for (int i = 0; i < R; ++i) acc[i] = bias;
  if (S == 1 && !kWeightsStay<K>) {
    // Column of taps by column: registers hold the weights of one.
#pragma GCC unroll 5
    for (int k = 0; k < K; ++k) {
      Vec w[K];
#pragma GCC unroll 5
      for (int i = 0; i < K; ++i) {
        w[i] = Set1(plane.w[i * K + k]);
        KeepInRegister(&w[i]);
      }
      const float* from = row + k;
#pragma GCC unroll 16
      for (int i = 0; i < kRowsIn; ++i) {
        if (i > 0) StepDown(a.in_w, &from);
        if (!kInside && (inside >> i & 1) == 0) continue;
        const Vec x = LoadColumns<kReads>(from, c.masks[S == 1 ? k : 0]);
#pragma GCC unroll 8
        for (int o = 0; o < R; ++o) {
          if (i - o >= 0 && i - o < K) acc[o] = FmaColumns<kReads>(w[(i - o + K) % K], x, acc[o]);
        }
      }
    }
  } else {
#pragma GCC unroll 16
    for (int i = 0; i < kRowsIn; ++i) {
      if (i > 0) StepDown(a.in_w, &row);
      if (kFetch && i >= kRowsIn - R * S) __builtin_prefetch(row + ahead);
      if (!kInside && (inside >> i & 1) == 0) continue;
      Vec x[K];
      LoadRow<K, S, kReads>(row, c, x);
#pragma GCC unroll 5
      for (int k = 0; k < K; ++k) {
#pragma GCC unroll 8
        for (int o = 0; o < R; ++o) {
          const int tap = i - o * S;
          if (tap < 0 || tap >= K) continue;
          const int at = tap * K + k;
          acc[o] = FmaColumns<kReads>(kWeightsStay<K> ? weights[at % 9] : Set1(plane.w[at]), x[k],
                                      acc[o]);
        }
      }
    }
  }
  EndBlock<kReads>(a, plane, oh * a.out_w + c.ow, a.out_w, c.columns, c.tail, acc);
}

// The vectors of a row, from left to right: some that touch the padding, then whole ones, then some
// that touch the padding or the row's end.
template <int K, int S>
struct ColumnVecs {
  static constexpr int kKnown = 8;
  bool overlaps;
  ColumnVec<K, S> known[kKnown];
  int64_t whole_begin = 0;
  int64_t whole_end = 0;
  int64_t count = 0;

  // `in_place`: the residual is overwritten, so that no element may be computed twice.
  ColumnVecs(const DwconvArgs& a, bool in_place)
      : overlaps(Vec::kSlowPartialStores && !in_place && a.out_w >= Vec::kLanes) {
    count = (a.out_w + Vec::kLanes - 1) / Vec::kLanes;
    while (whole_begin < count && !IsWhole(a, whole_begin)) ++whole_begin;
    whole_end = whole_begin;
    while (whole_end < count && IsWhole(a, whole_end)) ++whole_end;
    for (int64_t i = 0; i < kKnown && i < count - (whole_end - whole_begin); ++i) {
      known[i].Set(a, First(a, i < whole_begin ? i : i + whole_end - whole_begin));
    }
  }

  // The first column of a vector. Where storing a part of a vector is slow, the last one overlaps
  // the one before.
  int64_t First(const DwconvArgs& a, int64_t vec) const {
    const int64_t ow = vec * Vec::kLanes;
    return overlaps && ow + Vec::kLanes > a.out_w ? a.out_w - Vec::kLanes : ow;
  }

 private:
  bool IsWhole(const DwconvArgs& a, int64_t vec) const {
    const int64_t ow = First(a, vec);
    const int64_t left = ow * S - a.pad_w;
    return left >= 0 && ow + Vec::kLanes <= a.out_w && left + S * (Vec::kLanes - 1) + K <= a.in_w;
  }
};

// Output rows [oh, oh + R), all columns.
template <int K, int S, int R, bool kInside>
SRT_INLINE void DwconvRowBlock(const DwconvArgs& a, const DwconvPlane& plane,
                               const Vec (&weights)[9], Vec bias, int64_t oh,
                               const ColumnVecs<K, S>& vecs) {
  for (int64_t vec = vecs.whole_begin; vec < vecs.whole_end; ++vec) {
    ColumnVec<K, S> c;
    c.ow = vecs.First(a, vec);
    c.left = c.ow * S - a.pad_w;
    DwconvBlock<K, S, R, Reads::kWhole, kInside>(a, plane, weights, bias, oh, c);
  }
  const int64_t whole = vecs.whole_end - vecs.whole_begin;
  for (int64_t i = 0; i < vecs.count - whole; ++i) {
    ColumnVec<K, S> c;  // a copy: what is read through a reference is loaded at every use
    if (i < ColumnVecs<K, S>::kKnown) {
      c = vecs.known[i];
    } else {
      c.Set(a, vecs.First(a, i < vecs.whole_begin ? i : i + whole));
    }
    if (Vec::kLowerLanes > 0 && c.lower) {
      constexpr Reads kReads = Vec::kLowerLanes > 0 ? Reads::kLower : Reads::kMasked;
      DwconvBlock<K, S, R, kReads, kInside>(a, plane, weights, bias, oh, c);
    } else {
      DwconvBlock<K, S, R, Reads::kMasked, kInside && !Vec::kShortCode>(a, plane, weights, bias, oh,
                                                                        c);
    }
  }
}

// Whether blocks away from the padding have code of their own: for a kernel of 5, looking at every
// input row costs little.
template <int K>
constexpr bool kHasInside = K == 3 || !Vec::kShortCode;

template <int K, int S, int R>
SRT_INLINE void DwconvRowBlock(const DwconvArgs& a, const DwconvPlane& plane,
                               const Vec (&weights)[9], Vec bias, int64_t oh,
                               const ColumnVecs<K, S>& vecs) {
  const int64_t ih = oh * S - a.pad_h;
  if (kHasInside<K> && ih >= 0 && ih + (R - 1) * S + K <= a.in_h) {
    DwconvRowBlock<K, S, R, kHasInside<K>>(a, plane, weights, bias, oh, vecs);
  } else {
    DwconvRowBlock<K, S, R, false>(a, plane, weights, bias, oh, vecs);
  }
}

struct RowRange {
  int64_t begin;
  int64_t end;
};

// Some output rows of one plane.
template <int K, int S>
void DwconvPlaneRows(const DwconvArgs& a, RowRange range, const ColumnVecs<K, S>& vecs,
                     const DwconvPlane& plane, float bias) {
  const Vec b = Set1(bias);
  Vec weights[9];
  if (kWeightsStay<K>) {
#pragma GCC unroll 9
    for (int i = 0; i < 9; ++i) {
      weights[i] = Set1(plane.w[i]);
      KeepInRegister(&weights[i]);
    }
  }
  // Rows of a block: as many as registers hold, and a divisor of the sizes in use (7, 14, 28, ...).
  constexpr int kRows = S == 1 ? 7 : kWeightsStay<K> ? 4 : 2;
  int64_t oh = range.begin;
  for (; oh + kRows <= range.end; oh += kRows) {
    DwconvRowBlock<K, S, kRows>(a, plane, weights, b, oh, vecs);
  }
  if (kRows > 4 && oh + 4 <= range.end) {
    DwconvRowBlock<K, S, 4>(a, plane, weights, b, oh, vecs);
    oh += 4;
  }
  if (kRows > 2 && !Vec::kShortCode && oh + 2 <= range.end) {
    DwconvRowBlock<K, S, 2>(a, plane, weights, b, oh, vecs);
    oh += 2;
  }
  for (; oh < range.end; ++oh) DwconvRowBlock<K, S, 1>(a, plane, weights, b, oh, vecs);
}

}  // namespace SRT_ISA
}  // namespace sparsert
