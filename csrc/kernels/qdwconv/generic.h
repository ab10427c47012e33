// qdwconv over Vec and groups of four bytes: down a plane, a vector of output columns at a time.
// Included once per instruction set, after its vec_*.h and dot_*.h, with SRT_ISA defined.
//
// A packed plane holds four channels side by side. A dot product sums four bytes of one lane, so
// the taps of a row are brought side by side for each channel: then a dot product does a row of
// taps. An input row is read once; the sums of all output rows that it belongs to wait in
// registers.
#pragma once

#include <cstring>

#include "base/arch.h"
#include "kernels/define.h"
#include "kernels/qdwconv/qdwconv.h"

namespace sparsert {
namespace SRT_ISA {
namespace {

// One vector of output columns: which elements of an input row its taps may read.
template <int K, int S>
struct QdwconvColumns {
  int64_t left;  // what the first tap reads, a column of the input
  bool whole;    // all that is loaded lies inside
  Mask inside[K];
  Stride2Mask spread[K];
  Vec pad[K];  // the zero point, where a tap lies in the padding

  QdwconvColumns(const QdwconvArgs& a, int64_t ow, Vec fill) {
    left = ow * S - a.pad_w;
    whole = left >= 0 && left + K - 1 + S * Vec::kLanes <= a.in_w;
#pragma GCC unroll 5
    for (int k = 0; k < K; ++k) {
      uint32_t bits = 0;
      for (int l = 0; l < Vec::kLanes; ++l) {
        const int64_t at = left + k + S * l;
        bits |= static_cast<uint32_t>(at >= 0 && at < a.in_w) << l;
      }
      inside[k] = MaskFromBits(bits);
      spread[k] = SpreadMask(inside[k]);
      pad[k] = Select(inside[k], Zero(), fill);
    }
  }
};

template <int K>
struct QdwconvTaps {
  static constexpr int kGroups = QdwconvTapGroups(K);
  ByteVec of[kGroups][4];  // of every fourth column each, a lane for each channel
};

template <int K, int S, bool kWhole>
SRT_INLINE void LoadTaps(const float* p, const QdwconvColumns<K, S>& c, QdwconvTaps<K>* taps) {
  constexpr int kGroups = QdwconvTaps<K>::kGroups;
  Vec x[4 * kGroups];
#pragma GCC unroll 8
  for (int k = 0; k < K; ++k) {
    const float* at = p + k;
    if (S == 1) {
      x[k] = kWhole ? LoadU(at) : Or(LoadMask(at, c.inside[k]), c.pad[k]);
    } else {
      x[k] = kWhole ? Evens(LoadU(at), LoadU(at + Vec::kLanes))
                    : Or(LoadStride2Mask(at, c.spread[k]), c.pad[k]);
    }
  }
#pragma GCC unroll 8
  for (int k = K; k < 4 * kGroups; ++k) x[k] = x[K - 1];  // times 0
#pragma GCC unroll 2
  for (int g = 0; g < kGroups; ++g) {
    Vec columns[4];
    TransposeTaps(x[4 * g], x[4 * g + 1], x[4 * g + 2], x[4 * g + 3], columns);
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) taps->of[g][j] = ToBytes(columns[j]);
  }
}

// The output rows that wait for input rows: sums[q] of the q-th from the next one to be written.
template <int K, int S>
struct QdwconvSums {
  static constexpr int kRows = (K - 1) / S + 1;
  IntVec of[kRows][4];
};

// The strip of one plane that a vector of columns goes down.
struct QdwconvStrip {
  const QdwconvArgs* args;
  const float* x;  // at the first tap's column
  const float* w;
  Vec fill;
};

// Adds input row `ih`, which is the k-th row of taps of the next output row.
template <int K, int S, bool kWhole>
SRT_INLINE void AddInputRow(const QdwconvStrip& s, const QdwconvColumns<K, S>& c, int64_t ih, int k,
                            QdwconvSums<K, S>* sums) {
  constexpr int kGroups = QdwconvTaps<K>::kGroups;
  QdwconvTaps<K> taps;
  if (ih < 0 || ih >= s.args->in_h) {
    const ByteVec fill = ToBytes(s.fill);
#pragma GCC unroll 8
    for (int i = 0; i < 4 * kGroups; ++i) taps.of[i / 4][i % 4] = fill;
  } else {
    LoadTaps<K, S, kWhole>(s.x + ih * s.args->in_w, c, &taps);
  }
#pragma GCC unroll 5
  for (int q = 0; q < QdwconvSums<K, S>::kRows; ++q) {
    const int tap_row = k - q * S;
    if (tap_row < 0) continue;
#pragma GCC unroll 2
    for (int g = 0; g < kGroups; ++g) {
      const ByteWeights w = ToWeights(RepeatFour(s.w + (tap_row * kGroups + g) * 4));
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) sums->of[q][j] = Dot(taps.of[g][j], w, sums->of[q][j]);
    }
  }
}

template <int K, int S, bool kWhole>
void RunStrip(const QdwconvStrip& s, const QdwconvColumns<K, S>& c, const float* start_bits,
              Vec scale, int64_t columns, float* y) {
  const QdwconvArgs& a = *s.args;
  constexpr int kRows = QdwconvSums<K, S>::kRows;
  const ByteRange range = MakeByteRange(a.zero, a.low, a.high);
  const IntVec start = ToInts(RepeatFour(start_bits));
  const int n = columns < Vec::kLanes ? static_cast<int>(columns) : Vec::kLanes;
  const Mask tail = FirstN(n);
  QdwconvSums<K, S> sums;
#pragma GCC unroll 5
  for (int q = 0; q < kRows; ++q) {
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) sums.of[q][j] = start;
  }
  int64_t ih = -a.pad_h;
#pragma GCC unroll 4
  for (int k = 0; k < K - S; ++k) AddInputRow<K, S, kWhole>(s, c, ih++, k, &sums);
  for (int64_t oh = 0; oh < a.out_h; ++oh, y += a.out_w) {
#pragma GCC unroll 2
    for (int k = K - S; k < K; ++k) AddInputRow<K, S, kWhole>(s, c, ih++, k, &sums);
    Vec z[4];
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) z[j] = Mul(ToFloats(sums.of[0][j]), scale);
    const Vec bytes = RoundColumns(z[0], z[1], z[2], z[3], range);
    if (n == Vec::kLanes) {
      StoreU(y, bytes);
    } else {
      StoreFirst(y, n, tail, bytes);
    }
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
#pragma GCC unroll 5
      for (int q = 0; q + 1 < kRows; ++q) sums.of[q][j] = sums.of[q + 1][j];
      sums.of[kRows - 1][j] = start;
    }
  }
}

template <int K, int S>
void RunPlanes(const QdwconvArgs& a, void* const* io, int64_t begin, int64_t end) {
  uint32_t bits = a.fill;
  bits |= bits << 8;
  bits |= bits << 16;
  float fill;
  std::memcpy(&fill, &bits, sizeof(fill));
  const auto* weights = reinterpret_cast<const float*>(a.weights);
  const auto* starts = reinterpret_cast<const float*>(a.start);
  QdwconvStrip s;
  s.args = &a;
  s.fill = Set1(fill);
  for (int64_t ow = 0; ow < a.out_w; ow += Vec::kLanes) {
    const QdwconvColumns<K, S> c(a, ow, s.fill);
    for (int64_t item = begin; item < end; ++item) {
      const int64_t image = item / a.planes;
      const int64_t plane = item % a.planes;
      s.x = static_cast<const float*>(io[0]) + image * a.x_image + plane * a.x_plane + c.left;
      s.w = weights + plane * K * QdwconvTaps<K>::kGroups * 4;
      float* y = static_cast<float*>(io[1]) + image * a.y_image + plane * a.y_plane + ow;
      const Vec scale = RepeatFour(a.scale + plane * 4);
      if (c.whole) {
        RunStrip<K, S, true>(s, c, starts + plane * 4, scale, a.out_w - ow, y);
      } else {
        RunStrip<K, S, false>(s, c, starts + plane * 4, scale, a.out_w - ow, y);
      }
    }
  }
}

void Qdwconv(const void* args, void* const* io, int64_t begin, int64_t end, void*) {
  const QdwconvArgs& a = *static_cast<const QdwconvArgs*>(args);
  if (a.kernel == 3) {
    return a.stride == 1 ? RunPlanes<3, 1>(a, io, begin, end) : RunPlanes<3, 2>(a, io, begin, end);
  }
  return a.stride == 1 ? RunPlanes<5, 1>(a, io, begin, end) : RunPlanes<5, 2>(a, io, begin, end);
}

}  // namespace
}  // namespace SRT_ISA
}  // namespace sparsert
