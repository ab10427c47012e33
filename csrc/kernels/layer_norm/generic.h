// LayerNorm over Vec: along contiguous elements, or over contiguous groups.
#pragma once

#include "kernels/define.h"
#include "kernels/layer_norm/layer_norm.h"

namespace sparsert {
namespace SRT_ISA {

// Elements of one lane that are summed before the partial sum is kept.
constexpr int64_t kNormRun = 64;

SRT_INLINE Mask GroupMask(int64_t left) {
  return FirstN(left < Vec::kLanes ? static_cast<int>(left) : Vec::kLanes);
}

// The mean in two parts: where elements are large, it is not exact in one, but their differences to
// one of them are.
struct Centre {
  Vec first;
  Vec offset;
};
SRT_INLINE Vec Distance(Vec x, const Centre& c) { return Sub(Sub(x, c.first), c.offset); }

// The sum of distances to the centre, or of their squares, over x[0, n).
template <bool kSquares>
static float SumRow(const float* x, int64_t n, const Centre& centre) {
  double total = 0.0;
  for (int64_t done = 0; done < n;) {
    const int64_t stop = n - done < kNormRun * Vec::kLanes ? n : done + kNormRun * Vec::kLanes;
    Vec a = Zero();
    Vec b = Zero();
    for (; done + 2 * Vec::kLanes <= stop; done += 2 * Vec::kLanes) {
      const Vec p = Distance(LoadU(x + done), centre);
      const Vec q = Distance(LoadU(x + done + Vec::kLanes), centre);
      a = kSquares ? Fma(p, p, a) : Add(a, p);
      b = kSquares ? Fma(q, q, b) : Add(b, q);
    }
    for (; done < stop; done += Vec::kLanes) {
      const Mask m = GroupMask(stop - done);
      const Vec p = Select(m, Distance(LoadMask(x + done, m), centre), Zero());
      a = kSquares ? Fma(p, p, a) : Add(a, p);
    }
    done = stop;
    total += static_cast<double>(ReduceAdd(Add(a, b)));
  }
  return static_cast<float>(total);
}

static void NormaliseRow(const LayerNormArgs& args, const float* x, const float* scale,
                         const float* bias, float* y) {
  const int64_t n = args.count;
  const float count = static_cast<float>(n);
  Centre centre = {Zero(), Zero()};
  if (args.centred) {
    centre.first = Set1(x[0]);
    centre.offset = Set1(SumRow<false>(x, n, centre) / count);
  }
  const Vec variance = Set1(SumRow<true>(x, n, centre) / count);
  const Vec factor = Div(Set1(1.0f), Sqrt(Add(variance, Set1(args.epsilon))));
  for (int64_t i = 0; i < n; i += Vec::kLanes) {
    const Mask m = GroupMask(n - i);
    Vec r = Mul(Mul(Distance(LoadMask(x + i, m), centre), factor), LoadMask(scale + i, m));
    if (bias != nullptr) r = Add(r, LoadMask(bias + i, m));
    StoreMask(y + i, m, r);
  }
}

// Vectors of groups that are walked together, so that whole stretches of a row are read in turn.
constexpr int kNormVecs = 4;

// The vectors of groups at one element; of the last one, only the lanes of the mask.
template <int kVecs>
SRT_INLINE Vec LoadGroup(const float* row, int v, Mask last) {
  const float* at = row + v * Vec::kLanes;
  return v + 1 < kVecs ? LoadU(at) : LoadMask(at, last);
}

// The sums, in each lane, of distances to the centre (if asked for) and of their squares.
template <bool kDistances, int kVecs>
SRT_INLINE void SumGroups(const LayerNormArgs& args, const float* x, Mask last,
                          const Centre (&centres)[kVecs], Vec (&totals)[kVecs],
                          Vec (&squares)[kVecs]) {
  for (int v = 0; v < kVecs; ++v) totals[v] = squares[v] = Zero();
  for (int64_t done = 0; done < args.count;) {
    const int64_t stop = args.count - done < kNormRun ? args.count : done + kNormRun;
    Vec sums[kVecs];
    Vec sums_of_squares[kVecs];
    for (int v = 0; v < kVecs; ++v) sums[v] = sums_of_squares[v] = Zero();
    for (; done < stop; ++done) {
      const float* row = x + done * args.x_step;
      for (int v = 0; v < kVecs; ++v) {
        const Vec value = LoadGroup<kVecs>(row, v, last);
        const Vec p = kDistances ? Sub(value, centres[v].first) : Distance(value, centres[v]);
        if (kDistances) sums[v] = Add(sums[v], p);
        sums_of_squares[v] = Fma(p, p, sums_of_squares[v]);
      }
    }
    for (int v = 0; v < kVecs; ++v) {
      if (kDistances) totals[v] = Add(totals[v], sums[v]);
      squares[v] = Add(squares[v], sums_of_squares[v]);
    }
  }
}

// Centres and mean squares of the distances to them. One pass gives both, unless the first guess of
// a centre is so far off that the difference of two large numbers would be left.
template <int kVecs>
SRT_INLINE void Describe(const LayerNormArgs& args, const float* x, Mask last,
                         Centre (&centres)[kVecs], Vec (&variances)[kVecs]) {
  const Vec count = Set1(static_cast<float>(args.count));
  Vec totals[kVecs];
  for (int v = 0; v < kVecs; ++v) centres[v] = {Zero(), Zero()};
  if (!args.centred) {
    SumGroups<false>(args, x, last, centres, totals, variances);
    for (int v = 0; v < kVecs; ++v) variances[v] = Div(variances[v], count);
    return;
  }
  const float* other = x + args.count / 2 * args.x_step;
  for (int v = 0; v < kVecs; ++v) {
    // Between two elements: one of them alone may be an outlier in all groups.
    const Vec a = LoadGroup<kVecs>(x, v, last);
    centres[v].first = Fma(Sub(LoadGroup<kVecs>(other, v, last), a), Set1(0.5f), a);
  }
  SumGroups<true>(args, x, last, centres, totals, variances);
  Vec farthest = Zero();
  for (int v = 0; v < kVecs; ++v) {
    centres[v].offset = Div(totals[v], count);
    const Vec square = Mul(centres[v].offset, centres[v].offset);
    variances[v] = Sub(Div(variances[v], count), square);
    farthest =
        Max(farthest, Select(Less(Mul(variances[v], Set1(2.0f)), square), Set1(1.0f), Zero()));
  }
  if (ReduceMax(farthest) == 0.0f) return;
  SumGroups<false>(args, x, last, centres, totals, variances);
  for (int v = 0; v < kVecs; ++v) variances[v] = Div(variances[v], count);
}

// A group in each of the lanes; of the last vector only those of the mask.
template <int kVecs>
static void NormaliseGroups(const LayerNormArgs& args, const float* x, const float* scale,
                            const float* bias, float* y, Mask last) {
  Centre centres[kVecs];
  Vec factors[kVecs];
  Describe(args, x, last, centres, factors);
  for (int v = 0; v < kVecs; ++v) {
    factors[v] = Div(Set1(1.0f), Sqrt(Add(factors[v], Set1(args.epsilon))));
  }
  for (int64_t k = 0; k < args.count; ++k) {
    const float* from = x + k * args.x_step;
    float* to = y + k * args.y_step;
    const Vec stretch = Set1(scale[k]);
    const Vec shift = bias != nullptr ? Set1(bias[k]) : Zero();
    for (int v = 0; v < kVecs; ++v, from += Vec::kLanes, to += Vec::kLanes) {
      const Vec value = v + 1 < kVecs ? LoadU(from) : LoadMask(from, last);
      const Vec r = Fma(Mul(Distance(value, centres[v]), factors[v]), stretch, shift);
      if (v + 1 < kVecs) {
        StoreU(to, r);
      } else {
        StoreMask(to, last, r);
      }
    }
  }
}

static void LayerNorm(const void* args_block, void* const* io, int64_t begin, int64_t end, void*) {
  const LayerNormArgs& args = *static_cast<const LayerNormArgs*>(args_block);
  const float* x = static_cast<const float*>(io[0]);
  const float* scale = static_cast<const float*>(io[1]);
  const float* bias = static_cast<const float*>(io[2]);
  float* y = static_cast<float*>(io[3]);
  ForEachRow(args.rest, begin, end, [&](const int64_t* offsets, int64_t n) {
    const float* from = x + offsets[1];
    float* to = y + offsets[0];
    if (args.along_rows) {
      for (int64_t i = 0; i < n; ++i) {
        NormaliseRow(args, from + i * args.rest.row_strides[1], scale, bias,
                     to + i * args.rest.row_strides[0]);
      }
    } else {
      constexpr int64_t kWidth = static_cast<int64_t>(kNormVecs) * Vec::kLanes;
      int64_t i = 0;
      for (; i + kWidth <= n; i += kWidth) {
        NormaliseGroups<kNormVecs>(args, from + i, scale, bias, to + i, GroupMask(Vec::kLanes));
      }
      for (; i < n; i += Vec::kLanes) {
        NormaliseGroups<1>(args, from + i, scale, bias, to + i, GroupMask(n - i));
      }
    }
  });
}

}  // namespace SRT_ISA
}  // namespace sparsert
