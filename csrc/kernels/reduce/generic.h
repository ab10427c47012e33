// Reduce over Vec: along contiguous elements of a result, or over contiguous results.
#pragma once

#include "kernels/define.h"
#include "kernels/reduce/reduce.h"
#include "simd/vec_math.h"

namespace sparsert {
namespace SRT_ISA {

constexpr int64_t kFloatRun = 4096;  // elements summed in float lanes
constexpr int64_t kFloatSteps = 64;  // elements of one lane summed before the partial sum is kept

// How elements are combined. LogSumExp is a maximum followed by a sum of exponentials.
enum class Fold { kSum, kSumAbs, kSumSquare, kSumExp, kMax, kMin, kProd };

SRT_INLINE Fold FoldOf(ReduceFn fn) {
  switch (fn) {
    case ReduceFn::kMax:
      return Fold::kMax;
    case ReduceFn::kMin:
      return Fold::kMin;
    case ReduceFn::kProd:
      return Fold::kProd;
    case ReduceFn::kL1:
      return Fold::kSumAbs;
    case ReduceFn::kL2:
    case ReduceFn::kSumSquare:
      return Fold::kSumSquare;
    case ReduceFn::kLogSumExp:
      return Fold::kSumExp;
    default:
      return Fold::kSum;
  }
}

template <Fold F>
constexpr bool kIsSum = F != Fold::kMax && F != Fold::kMin && F != Fold::kProd;

template <Fold F>
constexpr float kStart = F == Fold::kMax    ? -__builtin_inff()
                         : F == Fold::kMin  ? __builtin_inff()
                         : F == Fold::kProd ? 1.0f
                                            : 0.0f;

// `shift` is subtracted before exp.
template <Fold F>
SRT_INLINE Vec FoldStep(Vec acc, Vec x, Vec shift) {
  if constexpr (F == Fold::kSum) {
    return Add(acc, x);
  } else if constexpr (F == Fold::kSumAbs) {
    return Add(acc, Abs(x));
  } else if constexpr (F == Fold::kSumSquare) {
    return Fma(x, x, acc);
  } else if constexpr (F == Fold::kSumExp) {
    return Add(acc, Exp(Sub(x, shift)));
  } else if constexpr (F == Fold::kMax) {
    return Select(IsNan(acc), acc, Max(acc, x));
  } else if constexpr (F == Fold::kMin) {
    return Select(IsNan(acc), acc, Min(acc, x));
  } else {
    return Mul(acc, x);
  }
}

// Two partial results of the same fold.
template <Fold F>
SRT_INLINE Vec FoldJoin(Vec a, Vec b) {
  return kIsSum<F> ? Add(a, b) : FoldStep<F>(a, b, Zero());
}

// What the shift of a LogSumExp is for a given maximum: infinities would give NaN.
SRT_INLINE Vec ShiftOf(Vec max) {
  return Select(Less(Abs(max), Set1(__builtin_inff())), max, Zero());
}

static SRT_NOINLINE Vec FinishReduce(ReduceFn fn, int64_t count, Vec acc, Vec shift) {
  switch (fn) {
    case ReduceFn::kMean:
      return Div(acc, Set1(static_cast<float>(count)));
    case ReduceFn::kL2:
      return Sqrt(acc);
    case ReduceFn::kLogSum:
      return Log(acc);
    case ReduceFn::kLogSumExp:
      return Add(Log(acc), shift);
    default:
      return acc;
  }
}

// The fold of x[0, n).
template <Fold F>
static float FoldRun(const float* x, int64_t n, float shift_value) {
  const Vec shift = Set1(shift_value);
  const Vec start = Set1(kStart<F>);
  Vec a = start;
  Vec b = start;
  int64_t i = 0;
  for (; i + 2 * Vec::kLanes <= n; i += 2 * Vec::kLanes) {
    a = FoldStep<F>(a, LoadU(x + i), shift);
    b = FoldStep<F>(b, LoadU(x + i + Vec::kLanes), shift);
  }
  for (; i < n; i += Vec::kLanes) {
    const Mask m = FirstN(n - i < Vec::kLanes ? static_cast<int>(n - i) : Vec::kLanes);
    a = Select(m, FoldStep<F>(a, LoadMask(x + i, m), shift), a);
  }
  a = FoldJoin<F>(a, b);
  if constexpr (kIsSum<F>) {
    return ReduceAdd(a);
  } else if constexpr (F == Fold::kProd) {
    float lanes[Vec::kLanes];
    StoreU(lanes, a);
    for (int k = 1; k < Vec::kLanes; ++k) lanes[0] *= lanes[k];
    return lanes[0];
  } else {
    if (ReduceAdd(Select(IsNan(a), Set1(1.0f), Zero())) > 0.0f) return __builtin_nanf("");
    return F == Fold::kMax ? ReduceMax(a) : ReduceMin(a);
  }
}

// The fold of one result whose elements begin at x.
template <Fold F>
SRT_INLINE float FoldElements(const ReduceArgs& args, const float* x, float shift) {
  double sum = 0.0;
  float other = kStart<F>;
  ForEachRow(args.reduced, 0, LoopItems(args.reduced), [&](const int64_t* offsets, int64_t n) {
    for (int64_t i = 0; i < n; i += kFloatRun) {
      const float* p = x + offsets[0] + i;
      const float part = FoldRun<F>(p, n - i < kFloatRun ? n - i : kFloatRun, shift);
      if constexpr (kIsSum<F>) {
        sum += part;
      } else {
        float lanes[Vec::kLanes];
        StoreU(lanes, FoldJoin<F>(Set1(other), Set1(part)));
        other = lanes[0];
      }
    }
  });
  return kIsSum<F> ? static_cast<float>(sum) : other;
}

template <Fold F>
static void ReduceAlongRows(const ReduceArgs& args, const float* x, float* y, int64_t begin,
                            int64_t end) {
  ForEachRow(args.kept, begin, end, [&](const int64_t* offsets, int64_t n) {
    for (int64_t i = 0; i < n; ++i) {
      const float* from = x + offsets[1] + i * args.kept.row_strides[1];
      float lanes[Vec::kLanes];
      float shift = 0.0f;
      if (F == Fold::kSumExp) {
        StoreU(lanes, ShiftOf(Set1(FoldElements<Fold::kMax>(args, from, 0.0f))));
        shift = lanes[0];
      }
      const float value = FoldElements<F>(args, from, shift);
      StoreU(lanes, FinishReduce(args.fn, args.count, Set1(value), Set1(shift)));
      y[offsets[0] + i * args.kept.row_strides[0]] = lanes[0];
    }
  });
}

// acc[v] = the folds of NV vectors of neighbouring results; lanes outside of the mask are not read.
template <Fold F, int NV>
SRT_INLINE void FoldColumns(const ReduceArgs& args, const float* x, Mask m, const Vec* shift,
                            Vec* acc) {
  for (int v = 0; v < NV; ++v) acc[v] = Set1(kStart<F>);
  const int64_t step = args.reduced.row_strides[0];
  ForEachRow(args.reduced, 0, LoopItems(args.reduced), [&](const int64_t* offsets, int64_t n) {
    const float* p = x + offsets[0];
    for (int64_t done = 0; done < n;) {
      const int64_t stop = n - done < kFloatSteps ? n : done + kFloatSteps;
      Vec part[NV];
      for (int v = 0; v < NV; ++v) part[v] = Set1(kStart<F>);
      for (; done < stop; ++done, p += step) {
        for (int v = 0; v < NV; ++v) {
          const Vec e = NV == 1 ? LoadMask(p, m) : LoadU(p + v * Vec::kLanes);
          part[v] = FoldStep<F>(part[v], e, shift[v]);
        }
      }
      for (int v = 0; v < NV; ++v) acc[v] = FoldJoin<F>(acc[v], part[v]);
    }
  });
}

template <Fold F, int NV>
SRT_INLINE void ReduceColumns(const ReduceArgs& args, const float* x, float* y, Mask m) {
  Vec shift[NV];
  Vec acc[NV];
  for (int v = 0; v < NV; ++v) shift[v] = Zero();
  if (F == Fold::kSumExp) {
    FoldColumns<Fold::kMax, NV>(args, x, m, shift, acc);
    for (int v = 0; v < NV; ++v) shift[v] = ShiftOf(acc[v]);
  }
  FoldColumns<F, NV>(args, x, m, shift, acc);
  for (int v = 0; v < NV; ++v) {
    const Vec result = FinishReduce(args.fn, args.count, acc[v], shift[v]);
    if (NV == 1) {
      StoreMask(y, m, result);
    } else {
      StoreU(y + v * Vec::kLanes, result);
    }
  }
}

template <Fold F>
static void ReduceOverColumns(const ReduceArgs& args, const float* x, float* y, int64_t begin,
                              int64_t end) {
  ForEachRow(args.kept, begin, end, [&](const int64_t* offsets, int64_t n) {
    const float* from = x + offsets[1];
    float* to = y + offsets[0];
    int64_t i = 0;
    for (; i + 4 * Vec::kLanes <= n; i += 4 * Vec::kLanes) {
      ReduceColumns<F, 4>(args, from + i, to + i, FirstN(Vec::kLanes));
    }
    for (; i < n; i += Vec::kLanes) {
      const Mask m = FirstN(n - i < Vec::kLanes ? static_cast<int>(n - i) : Vec::kLanes);
      ReduceColumns<F, 1>(args, from + i, to + i, m);
    }
  });
}

template <Fold F>
SRT_INLINE void ReduceItemsOf(const ReduceArgs& args, const float* x, float* y, int64_t begin,
                              int64_t end) {
  if (args.along_rows) {
    ReduceAlongRows<F>(args, x, y, begin, end);
  } else {
    ReduceOverColumns<F>(args, x, y, begin, end);
  }
}

static void Reduce(const void* args_block, void* const* io, int64_t begin, int64_t end, void*) {
  const ReduceArgs& args = *static_cast<const ReduceArgs*>(args_block);
  const float* x = static_cast<const float*>(io[0]);
  float* y = static_cast<float*>(io[1]);
  switch (FoldOf(args.fn)) {
    case Fold::kSum:
      return ReduceItemsOf<Fold::kSum>(args, x, y, begin, end);
    case Fold::kSumAbs:
      return ReduceItemsOf<Fold::kSumAbs>(args, x, y, begin, end);
    case Fold::kSumSquare:
      return ReduceItemsOf<Fold::kSumSquare>(args, x, y, begin, end);
    case Fold::kSumExp:
      return ReduceItemsOf<Fold::kSumExp>(args, x, y, begin, end);
    case Fold::kMax:
      return ReduceItemsOf<Fold::kMax>(args, x, y, begin, end);
    case Fold::kMin:
      return ReduceItemsOf<Fold::kMin>(args, x, y, begin, end);
    case Fold::kProd:
      return ReduceItemsOf<Fold::kProd>(args, x, y, begin, end);
  }
}

}  // namespace SRT_ISA
}  // namespace sparsert
