// rowconv over Vec. Included once per instruction set, after its vec_*.h, with SRT_ISA defined.
#pragma once

#include "kernels/rowconv/rowconv.h"
#include "simd/vec_math.h"

namespace sparsert {
namespace SRT_ISA {
namespace {

// Channels whose sums of two rows by two vectors fit into the registers.
constexpr int kRowconvHeld = Vec::kRegisters >= 32 ? 4 : 2;
static_assert(kRowconvChannels % kRowconvHeld == 0, "a work item is cut evenly");

// One image's planes with their padding.
struct RowconvPlanes {
  const float* data;
  int64_t pitch;
  int64_t plane;
};

void FillPlanes(const RowconvArgs& a, const float* x, float* to) {
  const int64_t pitch = RowconvPitch(a);
  const int64_t rows = RowconvRows(a);
  for (int32_t c = 0; c < a.in_channels; ++c, x += a.x_plane) {
    for (int64_t row = 0; row < rows; ++row, to += pitch) {
      for (int64_t i = 0; i < pitch; i += Vec::kLanes) Store(to + i, Zero());
      const int64_t ih = row - a.pad_h;
      if (ih < 0 || ih >= a.in_h) continue;
      const float* from = x + ih * a.in_w;
      float* inside = to + a.pad_w;
      // What lies behind the last output's window is not read.
      const int64_t n = a.in_w < pitch - a.pad_w ? a.in_w : pitch - a.pad_w;
      int64_t i = 0;
      for (; i + Vec::kLanes <= n; i += Vec::kLanes) StoreU(inside + i, LoadU(from + i));
      if (i < n) {
        const Mask tail = FirstN(static_cast<int>(n - i));
        StoreFirst(inside + i, static_cast<int>(n - i), tail, LoadMask(from + i, tail));
      }
    }
  }
}

// The columns of a vector that are stored.
struct Columns {
  int count;
  Mask mask;

  explicit Columns(int64_t left)
      : count(left < Vec::kLanes ? static_cast<int>(left) : Vec::kLanes), mask(FirstN(count)) {}
};

SRT_INLINE void StoreColumns(float* y, const Columns& columns, Vec v) {
  if (columns.count == Vec::kLanes) {
    StoreU(y, v);
  } else {
    StoreFirst(y, columns.count, columns.mask, v);
  }
}

// The channels that are computed together; those behind the last one repeat it.
struct RowconvHeld {
  const float* w[kRowconvHeld];
  float* y[kRowconvHeld];
  Vec bias[kRowconvHeld];
  // No activation, Relu and Clip are all of them a clamp; `other`: something else comes before it.
  Vec low, high;
  bool other;

  RowconvHeld(const RowconvArgs& a, int32_t first, float* out) {
    const int64_t taps = a.in_channels * a.kernel_h * a.kernel_w;
    for (int c = 0; c < kRowconvHeld; ++c) {
      const int32_t channel = first + c < a.channels ? first + c : a.channels - 1;
      w[c] = a.weights + channel * taps;
      y[c] = out + channel * a.y_plane;
      bias[c] = a.bias == nullptr ? Zero() : Set1(a.bias[channel]);
    }
    const UnaryFn fn = a.act.fn;
    const bool clip = fn == UnaryFn::kClip;
    low = Set1(clip ? a.act.alpha : fn == UnaryFn::kRelu ? 0.0f : -__builtin_inff());
    high = Set1(clip ? a.act.beta : __builtin_inff());
    other = !clip && fn != UnaryFn::kRelu && fn != UnaryFn::kNone;
  }
};

__attribute__((noinline)) inline void ActivateSums(const Activation& act, Vec* v, int n) {
  ApplyActivation(act, v, n);
}

// NV vectors of columns from ow on, of the output rows oh and oh + 1. K: the size of a square
// kernel, or 0 for any.
template <int NV, bool kPool, int K>
SRT_INLINE void RowconvBlock(const RowconvArgs& a, const RowconvPlanes& x, const RowconvHeld& held,
                             int64_t oh, int64_t ow) {
  constexpr int kHeld = kRowconvHeld;
  const int64_t kernel_h = K == 0 ? a.kernel_h : K;
  const int64_t kernel_w = K == 0 ? a.kernel_w : K;
  const int64_t pitch = x.pitch;
  Vec acc[kHeld][2 * NV];
#pragma GCC unroll 4
  for (int c = 0; c < kHeld; ++c) {
#pragma GCC unroll 4
    for (int i = 0; i < 2 * NV; ++i) acc[c][i] = held.bias[c];
  }
  int64_t tap = 0;
  const float* plane = x.data + oh * pitch + ow;
  for (int32_t i = 0; i < a.in_channels; ++i, plane += x.plane) {
    const float* row = plane;
#pragma GCC unroll 3
    for (int64_t kh = 0; kh < kernel_h; ++kh, row += pitch) {
#pragma GCC unroll 5
      for (int64_t kw = 0; kw < kernel_w; ++kw, ++tap) {
        Vec xv[2 * NV];
#pragma GCC unroll 2
        for (int v = 0; v < NV; ++v) {
          xv[v] = LoadU(row + kw + v * Vec::kLanes);
          xv[NV + v] = LoadU(row + pitch + kw + v * Vec::kLanes);
          KeepInRegister(&xv[v]);
          KeepInRegister(&xv[NV + v]);
        }
#pragma GCC unroll 4
        for (int c = 0; c < kHeld; ++c) {
          Vec weight = Set1(held.w[c][tap]);
          KeepInRegister(&weight);
#pragma GCC unroll 4
          for (int n = 0; n < 2 * NV; ++n) acc[c][n] = Fma(weight, xv[n], acc[c][n]);
        }
      }
    }
  }
  const int64_t out_row = kPool ? a.out_w / 2 : a.out_w;
  const int64_t at = kPool ? oh / 2 * out_row + ow / 2 : oh * out_row + ow;
  constexpr int64_t kMost = NV * Vec::kLanes / 2;
  const int64_t left = out_row - (kPool ? ow / 2 : ow);
  // Of the last vector; those before it are whole.
  const Columns columns(kPool ? (left < kMost ? left : kMost) : left - (NV - 1) * Vec::kLanes);
  if (__builtin_expect(held.other, false)) {
    // Through a copy: the sums themselves stay in registers.
    Vec sums[kHeld * 2 * NV];
#pragma GCC unroll 16
    for (int n = 0; n < kHeld * 2 * NV; ++n) sums[n] = acc[n / (2 * NV)][n % (2 * NV)];
    ActivateSums(a.act, sums, kHeld * 2 * NV);
#pragma GCC unroll 16
    for (int n = 0; n < kHeld * 2 * NV; ++n) acc[n / (2 * NV)][n % (2 * NV)] = sums[n];
  }
#pragma GCC unroll 4
  for (int c = 0; c < kHeld; ++c) {
    float* to = held.y[c] + at;
    if (kPool) {
      // A clamp of a maximum is the maximum of clamped values.
      const Vec first = Max(acc[c][0], acc[c][NV]);
      const Vec second = Max(acc[c][NV - 1], acc[c][2 * NV - 1]);
      Vec y = Max(Evens(first, second), Odds(first, second));
      y = Min(held.high, Max(held.low, y));
      StoreColumns(to, columns, y);
      continue;
    }
#pragma GCC unroll 4
    for (int n = 0; n < 2 * NV; ++n) {
      if (n == NV) {
        if (oh + 1 >= a.out_h) break;
        to += out_row - NV * Vec::kLanes;
      }
      const Vec y = Min(held.high, Max(held.low, acc[c][n]));
      if (n % NV == NV - 1) {
        StoreColumns(to + n * Vec::kLanes, columns, y);
      } else {
        StoreU(to + n * Vec::kLanes, y);
      }
    }
  }
}

template <bool kPool, int K>
__attribute__((noinline)) void RowconvChannels(const RowconvArgs& a, const RowconvPlanes& x,
                                               const RowconvHeld& held) {
  // A last row or column that no window covers is not computed.
  const int64_t rows = kPool ? a.out_h / 2 * 2 : a.out_h;
  const int64_t columns = kPool ? a.out_w / 2 * 2 : a.out_w;
  for (int64_t ow = 0; ow < columns; ow += 2 * Vec::kLanes) {
    if (ow + Vec::kLanes < columns) {
      for (int64_t oh = 0; oh < rows; oh += 2) RowconvBlock<2, kPool, K>(a, x, held, oh, ow);
    } else {
      for (int64_t oh = 0; oh < rows; oh += 2) RowconvBlock<1, kPool, K>(a, x, held, oh, ow);
    }
  }
}

template <bool kPool>
void RowconvChannels(const RowconvArgs& a, const RowconvPlanes& x, const RowconvHeld& held) {
  if (a.kernel_h == 3 && a.kernel_w == 3) {
    RowconvChannels<kPool, 3>(a, x, held);
  } else if (a.kernel_h == 5 && a.kernel_w == 5) {
    RowconvChannels<kPool, 5>(a, x, held);
  } else {
    RowconvChannels<kPool, 0>(a, x, held);
  }
}

}  // namespace

void Rowconv(const void* args, void* const* io, int64_t begin, int64_t end, void* scratch);
void Rowconv(const void* args, void* const* io, int64_t begin, int64_t end, void* scratch) {
  const DenormalsAreZero guard;
  const RowconvArgs& a = *static_cast<const RowconvArgs*>(args);
  const int64_t blocks = RowconvBlocks(a);
  const RowconvPlanes planes = {static_cast<float*>(scratch), RowconvPitch(a),
                                RowconvRows(a) * RowconvPitch(a)};
  for (int64_t item = begin; item < end;) {
    const int64_t image = item / blocks;
    const int64_t stop = (image + 1) * blocks < end ? (image + 1) * blocks : end;
    FillPlanes(a, static_cast<const float*>(io[0]) + image * a.x_image,
               static_cast<float*>(scratch));
    float* y = static_cast<float*>(io[1]) + image * a.y_image;
    for (; item < stop; ++item) {
      const auto block = static_cast<int32_t>(item - image * blocks) * kRowconvChannels;
      for (int32_t c = block; c < block + kRowconvChannels && c < a.channels; c += kRowconvHeld) {
        const RowconvHeld held(a, c, y);
        if (a.pool) {
          RowconvChannels<true>(a, planes, held);
        } else {
          RowconvChannels<false>(a, planes, held);
        }
      }
    }
  }
}

}  // namespace SRT_ISA
}  // namespace sparsert
