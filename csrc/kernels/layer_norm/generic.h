// LayerNorm over Vec: along contiguous elements, or over contiguous groups.
#pragma once

#include "kernels/define.h"
#include "kernels/layer_norm/layer_norm.h"

namespace sparsert {
namespace SRT_ISA {

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

// Adds, in each lane, the distances of elements [begin, end) to the centre (if asked for), and
// their squares.
template <bool kDistances, int kVecs>
SRT_INLINE void AddRun(const LayerNormArgs& args, const float* x, Mask last,
                       const Centre (&centres)[kVecs], int64_t begin, int64_t end,
                       Vec (&sums)[kVecs], Vec (&squares)[kVecs]) {
  for (int64_t k = begin; k < end; ++k) {
    const float* row = x + k * args.x_step;
    for (int v = 0; v < kVecs; ++v) {
      const Vec value = LoadGroup<kVecs>(row, v, last);
      const Vec p = kDistances ? Sub(value, centres[v].first) : Distance(value, centres[v]);
      if (kDistances) sums[v] = Add(sums[v], p);
      squares[v] = Fma(p, p, squares[v]);
    }
  }
}

// Their sums over all elements.
template <bool kDistances, int kVecs>
SRT_INLINE void SumGroups(const LayerNormArgs& args, const float* x, Mask last,
                          const Centre (&centres)[kVecs], Vec (&totals)[kVecs],
                          Vec (&squares)[kVecs]) {
  for (int v = 0; v < kVecs; ++v) totals[v] = squares[v] = Zero();
  for (int64_t done = 0; done < args.count; done += kNormRun) {
    const int64_t left = args.count - done;
    Vec sums[kVecs];
    Vec sums_of_squares[kVecs];
    for (int v = 0; v < kVecs; ++v) sums[v] = sums_of_squares[v] = Zero();
    AddRun<kDistances>(args, x, last, centres, done, done + (left < kNormRun ? left : kNormRun),
                       sums, sums_of_squares);
    for (int v = 0; v < kVecs; ++v) {
      if (kDistances) totals[v] = Add(totals[v], sums[v]);
      squares[v] = Add(squares[v], sums_of_squares[v]);
    }
  }
}

// A first guess of the centres: between two elements, one of which alone may be an outlier in all
// groups.
template <int kVecs>
SRT_INLINE void GuessCentres(const LayerNormArgs& args, const float* x, Mask last,
                             Centre (&centres)[kVecs]) {
  const float* other = x + args.count / 2 * args.x_step;
  for (int v = 0; v < kVecs; ++v) {
    const Vec a = LoadGroup<kVecs>(x, v, last);
    centres[v].first = Fma(Sub(LoadGroup<kVecs>(other, v, last), a), Set1(0.5f), a);
    centres[v].offset = Zero();
  }
}

// Centres and variances from sums of distances to a first guess, which also give those of squares
// unless the guess is so far off that the difference of two large numbers would be left.
template <int kVecs>
SRT_INLINE void Centralise(const LayerNormArgs& args, const float* x, Mask last,
                           Centre (&centres)[kVecs], Vec (&totals)[kVecs],
                           Vec (&variances)[kVecs]) {
  const Vec count = Set1(static_cast<float>(args.count));
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

// Centres and mean squares of the distances to them.
template <int kVecs>
SRT_INLINE void Describe(const LayerNormArgs& args, const float* x, Mask last,
                         Centre (&centres)[kVecs], Vec (&variances)[kVecs]) {
  Vec totals[kVecs];
  if (args.centred) {
    GuessCentres(args, x, last, centres);
    SumGroups<true>(args, x, last, centres, totals, variances);
    Centralise(args, x, last, centres, totals, variances);
    return;
  }
  const Vec count = Set1(static_cast<float>(args.count));
  for (int v = 0; v < kVecs; ++v) centres[v] = {Zero(), Zero()};
  SumGroups<false>(args, x, last, centres, totals, variances);
  for (int v = 0; v < kVecs; ++v) variances[v] = Div(variances[v], count);
}

// Elements [begin, end) of a group in each of the lanes; of the last vector only those of the mask.
template <int kVecs>
SRT_INLINE void EndGroups(const LayerNormArgs& args, const float* x, const float* scale,
                          const float* bias, float* y, Mask last, const Centre (&centres)[kVecs],
                          const Vec (&factors)[kVecs], int64_t begin, int64_t end) {
  for (int64_t k = begin; k < end; ++k) {
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

SRT_INLINE Vec FactorOf(const LayerNormArgs& args, Vec variance) {
  return Div(Set1(1.0f), Sqrt(Add(variance, Set1(args.epsilon))));
}

template <int kVecs>
static void NormaliseGroups(const LayerNormArgs& args, const float* x, const float* scale,
                            const float* bias, float* y, Mask last) {
  Centre centres[kVecs];
  Vec factors[kVecs];
  Describe(args, x, last, centres, factors);
  for (int v = 0; v < kVecs; ++v) factors[v] = FactorOf(args, factors[v]);
  EndGroups(args, x, scale, bias, y, last, centres, factors, 0, args.count);
}

#if !defined(SRT_ARM)  // threads share elements on x86 alone
// A stage of kVecs vectors of groups, from group `at` on. io[4] holds a row for each sum of each
// run, then one for each number that describes a group.
template <int kVecs>
static void RunNormStage(const LayerNormArgs& args, void* const* io, int64_t at, Mask last,
                         int64_t begin, int64_t end) {
  const float* x = static_cast<const float*>(io[0]) + at;
  const int64_t row = NormSumsRow(args);
  float* sums = static_cast<float*>(io[4]) + at;
  float* centre = sums + 2 * NormRuns(args) * row;
  Centre centres[kVecs];
  Vec totals[kVecs];
  Vec squares[kVecs];
  if (args.stage == NormStage::kSums) {
    GuessCentres(args, x, last, centres);
    for (int64_t run = begin; run < end; ++run) {
      for (int v = 0; v < kVecs; ++v) totals[v] = squares[v] = Zero();
      const int64_t first = run * kNormRun;
      const int64_t left = args.count - first;
      AddRun<true>(args, x, last, centres, first, first + (left < kNormRun ? left : kNormRun),
                   totals, squares);
      for (int v = 0; v < kVecs; ++v) {
        StoreU(sums + 2 * run * row + v * Vec::kLanes, totals[v]);
        StoreU(sums + (2 * run + 1) * row + v * Vec::kLanes, squares[v]);
      }
    }
    return;
  }
  if (args.stage == NormStage::kCentres) {
    GuessCentres(args, x, last, centres);
    for (int v = 0; v < kVecs; ++v) totals[v] = squares[v] = Zero();
    for (int64_t run = 0; run < NormRuns(args); ++run) {
      for (int v = 0; v < kVecs; ++v) {
        totals[v] = Add(totals[v], LoadU(sums + 2 * run * row + v * Vec::kLanes));
        squares[v] = Add(squares[v], LoadU(sums + (2 * run + 1) * row + v * Vec::kLanes));
      }
    }
    Centralise(args, x, last, centres, totals, squares);
    for (int v = 0; v < kVecs; ++v) {
      StoreU(centre + v * Vec::kLanes, centres[v].first);
      StoreU(centre + row + v * Vec::kLanes, centres[v].offset);
      StoreU(centre + 2 * row + v * Vec::kLanes, FactorOf(args, squares[v]));
    }
    return;
  }
  for (int v = 0; v < kVecs; ++v) {
    centres[v].first = LoadU(centre + v * Vec::kLanes);
    centres[v].offset = LoadU(centre + row + v * Vec::kLanes);
    totals[v] = LoadU(centre + 2 * row + v * Vec::kLanes);
  }
  const int64_t stop = end * kNormRun < args.count ? end * kNormRun : args.count;
  EndGroups(args, x, static_cast<const float*>(io[1]), static_cast<const float*>(io[2]),
            static_cast<float*>(io[3]) + at, last, centres, totals, begin * kNormRun, stop);
}
#endif

// Calls body(first group, whether it is of kNormVecs vectors or one, mask of the last one) for n
// neighbouring groups.
template <typename Body>
SRT_INLINE void ForEachGroups(int64_t n, Body&& body) {
  constexpr int64_t kWidth = static_cast<int64_t>(kNormVecs) * Vec::kLanes;
  int64_t i = 0;
  for (; i + kWidth <= n; i += kWidth) body(i, true, GroupMask(Vec::kLanes));
  for (; i < n; i += Vec::kLanes) body(i, false, GroupMask(n - i));
}

static void LayerNorm(const void* args_block, void* const* io, int64_t begin, int64_t end, void*) {
  const LayerNormArgs& args = *static_cast<const LayerNormArgs*>(args_block);
  const float* x = static_cast<const float*>(io[0]);
  const float* scale = static_cast<const float*>(io[1]);
  const float* bias = static_cast<const float*>(io[2]);
  float* y = static_cast<float*>(io[3]);
#if !defined(SRT_ARM)
  if (args.stage != NormStage::kAll) {
    ForEachGroups(args.rest.row, [&](int64_t at, bool wide, Mask last) {
      if (wide) {
        RunNormStage<kNormVecs>(args, io, at, last, begin, end);
      } else {
        RunNormStage<1>(args, io, at, last, begin, end);
      }
    });
    return;
  }
#endif
  ForEachRow(args.rest, begin, end, [&](const int64_t* offsets, int64_t n) {
    const float* from = x + offsets[1];
    float* to = y + offsets[0];
    if (args.along_rows) {
      for (int64_t i = 0; i < n; ++i) {
        NormaliseRow(args, from + i * args.rest.row_strides[1], scale, bias,
                     to + i * args.rest.row_strides[0]);
      }
    } else {
      ForEachGroups(n, [&](int64_t at, bool wide, Mask last) {
        if (wide) {
          NormaliseGroups<kNormVecs>(args, from + at, scale, bias, to + at, last);
        } else {
          NormaliseGroups<1>(args, from + at, scale, bias, to + at, last);
        }
      });
    }
  });
}

}  // namespace SRT_ISA
}  // namespace sparsert
