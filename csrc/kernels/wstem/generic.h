// wstem over Vec. Included once per instruction set, after its vec_*.h, with SRT_ISA defined.
#pragma once

#include "kernels/inside.h"
#include "kernels/wstem/wstem.h"
#include "simd/vec_math.h"

namespace sparsert {
namespace SRT_ISA {
namespace {

static_assert(Vec::kLanes == kWstemLanes, "a vector of patches");

// B^T d of a patch's nine inputs: first the five points of the even ones, then the four of the odd.
SRT_INLINE void TransformPatch(const Vec (&d)[kWstemInputs], Vec (&out)[kWstemInputs]) {
  const Vec two = Set1(2.0f);
  const Vec d64 = Sub(d[6], d[4]);
  const Vec d62 = Sub(d[6], d[2]);
  out[0] = Fma(two, Sub(d[0], d[4]), d62);
  out[1] = Fnma(two, d[2], d64);
  out[2] = Fma(two, Sub(d[2], d[4]), d64);
  out[3] = d62;
  out[4] = Fnma(two, d62, Sub(d[8], d[4]));
  out[5] = Sub(d[5], d[1]);
  out[6] = Add(d[5], d[3]);
  out[7] = Sub(d[5], d[3]);
  out[8] = Sub(d[7], d[3]);
}
// Their points, and whether they are odd.
constexpr int kPointOf[kWstemInputs] = {0, 1, 2, 3, 4, 0, 1, 2, 4};
SRT_INLINE int ParityOf(int input) { return input >= kWstemPoints ? 1 : 0; }

// Of a patch, in the order row by row.
struct Outputs {
  Vec at[4];
};

// y0 and y1 of five points. Additions and multiply-adds have units of their own: half of the sums
// are made by either. `one`: 1, unknown to the compiler.
SRT_INLINE void TransformPoints(const Vec (&p)[kWstemPoints], Vec one, Vec* y0, Vec* y1) {
  const Vec two = Set1(2.0f);
  *y0 = Fma(one, Add(p[0], p[3]), Fma(one, p[1], p[2]));
  *y1 = Add(Fma(two, p[3], p[4]), Sub(p[1], p[2]));
}

SRT_INLINE Vec UnknownOne() {
  Vec one = Set1(1.0f);
  KeepInRegister(&one);
  return one;
}

// A panel's products at a point, of a strip of NV vectors. u, v: K-rows of weights and of vectors.
template <int NV, bool kLower>
SRT_INLINE void MultiplyPoint(const float*& u, const float*& v, int depth,
                              Vec (&acc)[kWstemRows][NV]) {
  constexpr int kFull = kLower ? NV - 1 : NV;
#pragma GCC unroll 4
  for (int r = 0; r < kWstemRows; ++r) {
#pragma GCC unroll 4
    for (int i = 0; i < NV; ++i) acc[r][i] = Zero();
  }
  for (int k = depth; k > 0; --k) {
    Vec x[NV];
#pragma GCC unroll 4
    for (int i = 0; i < NV; ++i) {
      x[i] = i < kFull ? Load(v + i * Vec::kLanes) : LoadLower(v + i * Vec::kLanes);
    }
#pragma GCC unroll 4
    for (int r = 0; r < kWstemRows; ++r) {
      const Vec w = Set1(u[r]);
#pragma GCC unroll 4
      for (int i = 0; i < NV; ++i) {
        acc[r][i] = i < kFull ? Fma(w, x[i], acc[r][i]) : FmaLower(w, x[i], acc[r][i]);
      }
    }
    u += kWstemRows;
    v += NV * Vec::kLanes;
  }
}

// The floats of a vector of outputs between the two transforms: [columns of points][2 rows].
constexpr int kHalfDone = 2 * kWstemPoints * kWstemLanes;

// A panel's products at a column of points, transformed by A^T: `half` is [kWstemRows][NV] times
// kHalfDone floats. u, v: [points][K-rows]; m: memory for four points' products.
template <int NV, bool kLower>
SRT_NOINLINE void MultiplyColumn(const float* u, const float* v, int column, int in_channels,
                                 float* m, float* half) {
  constexpr int kPoint = kWstemRows * NV * Vec::kLanes;
  Vec acc[kWstemRows][NV];
  for (int row = 0; row + 1 < kWstemPoints; ++row) {
    MultiplyPoint<NV, kLower>(u, v, WstemDepth(column, row, in_channels), acc);
    float* to = m + row * kPoint;
#pragma GCC unroll 4
    for (int r = 0; r < kWstemRows; ++r) {
#pragma GCC unroll 4
      for (int i = 0; i < NV; ++i, to += Vec::kLanes) Store(to, acc[r][i]);
    }
  }
  MultiplyPoint<NV, kLower>(u, v, WstemDepth(column, kWstemPoints - 1, in_channels), acc);
  const Vec one = UnknownOne();
#pragma GCC unroll 4
  for (int r = 0; r < kWstemRows; ++r) {
#pragma GCC unroll 4
    for (int i = 0; i < NV; ++i, m += Vec::kLanes, half += kHalfDone) {
      const Vec p[kWstemPoints] = {Load(m), Load(m + kPoint), Load(m + 2 * kPoint),
                                   Load(m + 3 * kPoint), acc[r][i]};
      Vec y[2];
      TransformPoints(p, one, &y[0], &y[1]);
      Store(half, y[0]);
      Store(half + Vec::kLanes, y[1]);
    }
  }
}

// The outputs of a vector of patches.
SRT_INLINE Outputs TransformHalf(const float* half, Vec one) {
  Outputs out;
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i) {
    Vec p[kWstemPoints];
#pragma GCC unroll 5
    for (int column = 0; column < kWstemPoints; ++column) {
      p[column] = Load(half + (2 * column + i) * Vec::kLanes);
    }
    TransformPoints(p, one, &out.at[2 * i], &out.at[2 * i + 1]);
  }
  return out;
}

SRT_INLINE Vec Lowest() { return Set1(-__builtin_inff()); }
SRT_INLINE void FillLowest(float* to, int64_t floats) {
  for (int64_t i = 0; i < floats; i += Vec::kLanes) Store(to + i, Lowest());
}

// The first `columns` floats of two vectors.
SRT_INLINE void StoreFirstOf(float* p, int64_t columns, Vec lower, Vec upper) {
  const int n = columns > 2 * Vec::kLanes ? 2 * Vec::kLanes : static_cast<int>(columns);
  StoreMask(p, FirstN(n), lower);
  StoreMask(p + Vec::kLanes, FirstN(n - Vec::kLanes), upper);
}

class WstemRun {
 public:
  WstemRun(const StemArgs& a, const float* x, float* y, float* scratch)
      : a_(a), x_(x), y_(y), floats_(WstemFloatsOf(a)), vecs_(WstemPatchVecs(a)) {
    plain_ = scratch;
    ring_ = plain_ + floats_.plain;
    v_ = ring_ + floats_.ring;
    m_ = v_ + floats_.v;
    half_ = m_ + floats_.m;
    row_ = half_ + floats_.half;
    edge_ = row_ + floats_.row;
    const bool clip = a.act.fn == UnaryFn::kClip;
    low_ = clip ? a.act.alpha : a.act.fn == UnaryFn::kRelu ? 0.0f : -__builtin_inff();
    high_ = clip ? a.act.beta : __builtin_inff();
    int at = 0;
    for (int column = 0; column < kWstemPoints; ++column) {
      for (int row = 0; row < kWstemPoints; ++row) {
        begin_[column][row] = at;
        at += WstemDepth(column, row, a.in_channels);
      }
    }
  }

  void Run(int64_t begin, int64_t end) {
    for (int64_t item = begin; item < end; ++item) {
      const int64_t band = item % a_.bands;
      const int64_t pair_begin = band * StemPairs(a_) / a_.bands;
      const int64_t pair_end = (band + 1) * StemPairs(a_) / a_.bands;
      if (band == 0 || item == begin) {
        image_ = item / a_.bands;
        have_ = INT64_MIN;
        if (a_.pool && band != 0) {
          RunRow(pair_begin - 1, true);
        } else if (a_.pool) {
          FillLowest(row_, floats_.row);
        }
      }
      for (int64_t pair = pair_begin; pair < pair_end; ++pair) RunRow(pair, false);
    }
  }

 private:
  // A row of X, which may lie in the padding, apart by the remainders of its columns. Returns
  // whether all is finite.
  bool SplitRow(int64_t row, int32_t channel, float* to) const {
    const int64_t width = floats_.phases / 4;
    if (row < 0 || row >= a_.in_h) {
      for (int64_t i = 0; i < floats_.phases; i += Vec::kLanes) Store(to + i, Zero());
      return true;
    }
    const float* x = x_ + image_ * a_.x_image + channel * a_.x_plane + row * a_.in_w;
    Vec check = Zero();
    for (int64_t at = 0; at < width; at += Vec::kLanes) {
      Vec read[4];
      const int64_t first = 4 * at - a_.pad_w;
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) {
        const int64_t from = first + i * Vec::kLanes;
        read[i] = LoadMask(x + from, MaskFromBits(BitsInside(from, a_.in_w)));
        check = Add(check, Sub(read[i], read[i]));
      }
      const Vec even[2] = {Evens(read[0], read[1]), Evens(read[2], read[3])};
      const Vec odd[2] = {Odds(read[0], read[1]), Odds(read[2], read[3])};
      Store(to + at, Evens(even[0], even[1]));
      Store(to + width + at, Evens(odd[0], odd[1]));
      Store(to + 2 * width + at, Odds(even[0], even[1]));
      Store(to + 3 * width + at, Odds(odd[0], odd[1]));
    }
    return ReduceAdd(check) == 0.0f;
  }

  // Transforms by columns those of the rows from `top` on that the ring does not hold. Returns
  // whether all nine are finite.
  bool ReadRows(int64_t top) {
    const int64_t width = floats_.phases / 4;
    const int64_t columns = vecs_ * Vec::kLanes;
    for (int64_t row = have_ > top ? have_ : top; row < top + kWstemInputs; ++row) {
      const int64_t slot = (row + a_.pad_h) % kWstemInputs;
      finite_[slot] = true;
      float* to = ring_ + slot * a_.in_channels * kWstemInputs * columns;
      for (int32_t c = 0; c < a_.in_channels; ++c, to += kWstemInputs * columns) {
        finite_[slot] = SplitRow(row, c, plain_) && finite_[slot];
        for (int64_t at = 0; at < columns; at += Vec::kLanes) {
          Vec d[kWstemInputs];
          Vec out[kWstemInputs];
#pragma GCC unroll 9
          for (int i = 0; i < kWstemInputs; ++i) d[i] = LoadU(plain_ + i % 4 * width + i / 4 + at);
          TransformPatch(d, out);
#pragma GCC unroll 9
          for (int i = 0; i < kWstemInputs; ++i) Store(to + i * columns + at, out[i]);
        }
      }
    }
    have_ = top + kWstemInputs;
    bool finite = true;
    for (const bool row_finite : finite_) finite = finite && row_finite;
    return finite;
  }

  // V of a strip.
  void TransformStrip(int64_t top, int64_t first_vec, int vecs) {
    const int64_t columns = vecs_ * Vec::kLanes;
    const float* rows[kWstemInputs];
    for (int i = 0; i < kWstemInputs; ++i) {
      rows[i] = ring_ +
                (top + i + a_.pad_h) % kWstemInputs * a_.in_channels * kWstemInputs * columns +
                first_vec * Vec::kLanes;
    }
    const int width = vecs * Vec::kLanes;
    for (int32_t c = 0; c < a_.in_channels; ++c) {
      for (int j = 0; j < kWstemInputs; ++j) {
        const int column = kPointOf[j];
        float* to[kWstemInputs];
#pragma GCC unroll 9
        for (int i = 0; i < kWstemInputs; ++i) {
          const int parities = ParityOf(i) * WstemParities(column) + ParityOf(j);
          to[i] = v_ + (begin_[column][kPointOf[i]] + parities * a_.in_channels + c) * width;
        }
        const int64_t from = (c * kWstemInputs + j) * columns;
        for (int at = 0; at < width; at += Vec::kLanes) {
          Vec d[kWstemInputs];
          Vec out[kWstemInputs];
#pragma GCC unroll 9
          for (int i = 0; i < kWstemInputs; ++i) d[i] = Load(rows[i] + from + at);
          TransformPatch(d, out);
#pragma GCC unroll 9
          for (int i = 0; i < kWstemInputs; ++i) Store(to[i] + at, out[i]);
        }
      }
    }
  }

  // By direct summation, of the patches from `column` on.
  Outputs PlainOutputs(int64_t channel, int64_t column) const {
    const int64_t width = floats_.phases / 4;
    Outputs out;
    for (int i = 0; i < 4; ++i) {
      const float* w = a_.weights + channel * a_.in_channels * (kWstemKernel * kWstemKernel);
      Vec sum = Zero();
      for (int32_t c = 0; c < a_.in_channels; ++c) {
        for (int kh = 0; kh < kWstemKernel; ++kh) {
          const float* from =
              plain_ + ((2 * (i / 2) + kh) * a_.in_channels + c) * floats_.phases + column;
          for (int kw = 0; kw < kWstemKernel; ++kw, ++w) {
            const int at = 2 * (i % 2) + kw;
            sum = Fma(Set1(*w), LoadU(from + at % 4 * width + at / 4), sum);
          }
        }
      }
      out.at[i] = sum;
    }
    return out;
  }

  // A row of patches: a pair of output rows. With `row_before`, the pool only keeps the second one.
  void RunRow(int64_t pair, bool row_before) {
    const int64_t top = 4 * pair - a_.pad_h;
    pair_ = pair;
    row_before_ = row_before;
    both_ = 2 * pair + 1 < a_.out_h;
    const bool plain = !ReadRows(top) || a_.packed == nullptr;
    if (plain) {
      float* to = plain_;
      for (int i = 0; i < kWstemInputs; ++i) {
        for (int32_t c = 0; c < a_.in_channels; ++c, to += floats_.phases) {
          SplitRow(top + i, c, to);
        }
      }
    }
    if (a_.pool) FillLowest(edge_, floats_.edge);
    const int64_t strips = (vecs_ + kWstemVecs - 1) / kWstemVecs;
    for (int64_t strip = 0; strip < strips; ++strip) {
      const int64_t first = strip * vecs_ / strips;
      const int vecs = static_cast<int>((strip + 1) * vecs_ / strips - first);
      const int64_t patches = (a_.out_w + 1) / 2 - (first + vecs - 1) * Vec::kLanes;
      const bool lower = Vec::kLowerLanes > 0 && patches <= Vec::kLowerLanes;
      if (plain) {
        RunPlain(first, vecs);
        continue;
      }
      TransformStrip(top, first, vecs);
      switch (vecs * 2 + (lower ? 1 : 0)) {
#define SRT_STRIP(n)                            \
  case 2 * (n):                                 \
    RunStrip<n, false>(first);                  \
    break;                                      \
  case 2 * (n) + 1:                             \
    RunStrip<n, (Vec::kLowerLanes > 0)>(first); \
    break;
        SRT_STRIP(1)
        SRT_STRIP(2)
        SRT_STRIP(3)
        SRT_STRIP(4)
#undef SRT_STRIP
        default:
          break;
      }
    }
  }

  template <int NV, bool kLower>
  void RunStrip(int64_t first_vec) {
    const int64_t panels = WstemPanels(a_);
    constexpr int64_t kPanelHalf = static_cast<int64_t>(kWstemRows) * NV * kHalfDone;
    const float* u = a_.packed;
    const float* v = v_;
    for (int column = 0; column < kWstemPoints; ++column) {
      const int depth = kWstemInputs * WstemParities(column) * a_.in_channels;
      float* half = half_ + column * 2 * Vec::kLanes;
      for (int64_t panel = 0; panel < panels; ++panel) {
        MultiplyColumn<NV, kLower>(u, v, column, a_.in_channels, m_, half + panel * kPanelHalf);
        u += depth * kWstemRows;
      }
      v += depth * NV * Vec::kLanes;
    }
    if (a_.pool) {
      EndStrip<NV, true>(first_vec);
    } else {
      EndStrip<NV, false>(first_vec);
    }
  }

  template <int NV, bool kPool>
  SRT_NOINLINE void EndStrip(int64_t first_vec) {
    const Vec one = UnknownOne();
    const float* half = half_;
    for (int64_t channel = 0; channel < a_.channels; ++channel) {
      Vec before = kPool ? Load(edge_ + channel * Vec::kLanes) : Zero();
#pragma GCC unroll 4
      for (int i = 0; i < NV; ++i, half += kHalfDone) {
        const Outputs out = TransformHalf(half, one);
        if (kPool) {
          EndPooled(channel, first_vec + i, out, &before);
        } else {
          EndPair(channel, first_vec + i, out);
        }
      }
      if (kPool) Store(edge_ + channel * Vec::kLanes, before);
    }
  }

  SRT_NOINLINE void RunPlain(int64_t first_vec, int vecs) {
    for (int64_t channel = 0; channel < a_.channels; ++channel) {
      Vec before = a_.pool ? Load(edge_ + channel * Vec::kLanes) : Zero();
      for (int64_t vec = first_vec; vec < first_vec + vecs; ++vec) {
        const Outputs out = PlainOutputs(channel, vec * Vec::kLanes);
        if (a_.pool) {
          EndPooled(channel, vec, out, &before);
        } else {
          EndPair(channel, vec, out);
        }
      }
      if (a_.pool) Store(edge_ + channel * Vec::kLanes, before);
    }
  }

  Vec BiasOf(int64_t channel) const { return a_.bias == nullptr ? Zero() : Set1(a_.bias[channel]); }

  inline void EndPair(int64_t channel, int64_t vec, const Outputs& sums) const {
    const Vec bias = BiasOf(channel);
    Vec out[4];
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) {
      const Vec even = Add(sums.at[2 * i], bias);
      const Vec odd = Add(sums.at[2 * i + 1], bias);
      out[2 * i] = ZipLower(even, odd);
      out[2 * i + 1] = ZipUpper(even, odd);
    }
    ActivateRegisters(a_.act, out);
    const int64_t column = 2 * vec * Vec::kLanes;
    float* y = y_ + image_ * a_.y_image + channel * a_.y_plane + 2 * pair_ * a_.out_w + column;
    StoreFirstOf(y, a_.out_w - column, out[0], out[1]);
    if (both_) StoreFirstOf(y + a_.out_w, a_.out_w - column, out[2], out[3]);
  }

  // Bias and activation come last: they keep the order of numbers. What lies outside of the plane
  // is below everything. *before: what the vector before has in odd columns.
  inline void EndPooled(int64_t channel, int64_t vec, const Outputs& sums, Vec* before) const {
    const Vec even_below = both_ ? sums.at[2] : Lowest();
    const Vec odd_below = both_ ? sums.at[3] : Lowest();
    float* row = row_ + (channel * vecs_ + vec) * (2 * Vec::kLanes);
    Vec even = Max(Max(Load(row), sums.at[0]), even_below);
    Vec odd = Max(Max(Load(row + Vec::kLanes), sums.at[1]), odd_below);
    Store(row, even_below);
    Store(row + Vec::kLanes, odd_below);
    if (row_before_) return;
    const int64_t column = vec * Vec::kLanes;
    const int64_t left = a_.pooled_w - column;
    if (left <= Vec::kLanes) {
      const int64_t columns = a_.out_w - 2 * column;
      even = Select(FirstN(static_cast<int>((columns + 1) / 2)), even, Lowest());
      odd = Select(FirstN(static_cast<int>(columns / 2)), odd, Lowest());
    }
    const Vec most = Max(Max(even, odd), ShiftUp(*before, odd));
    *before = odd;
    const Vec out = Min(Set1(high_), Max(Set1(low_), Add(most, BiasOf(channel))));
    float* y = y_ + image_ * a_.y_image + channel * a_.y_plane + pair_ * a_.pooled_w + column;
    StoreMask(y, FirstN(left < Vec::kLanes ? static_cast<int>(left) : Vec::kLanes), out);
  }

  const StemArgs& a_;
  const float* const x_;
  float* const y_;
  const WstemFloats floats_;
  const int64_t vecs_;  // of a row of patches
  float* plain_;
  float* ring_;
  float* v_;
  float* m_;
  float* half_;
  float* row_;
  float* edge_;
  float low_, high_;
  int begin_[kWstemPoints][kWstemPoints];  // the first K-row of a point, [column][row]
  // Of what is being computed.
  int64_t image_ = 0;
  int64_t have_ = INT64_MIN;  // rows of X before this one have been read
  bool finite_[kWstemInputs] = {};
  int64_t pair_ = 0;
  bool row_before_ = false;
  bool both_ = false;  // output rows exist
};

}  // namespace

void Wstem(const void* args, void* const* io, int64_t begin, int64_t end, void* scratch);
void Wstem(const void* args, void* const* io, int64_t begin, int64_t end, void* scratch) {
  const DenormalsAreZero guard;
  WstemRun(*static_cast<const StemArgs*>(args), static_cast<const float*>(io[0]),
           static_cast<float*>(io[1]), static_cast<float*>(scratch))
      .Run(begin, end);
}

}  // namespace SRT_ISA
}  // namespace sparsert
