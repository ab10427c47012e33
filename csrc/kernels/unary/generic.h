// Unary over Vec.
#pragma once

#include "kernels/define.h"
#include "kernels/unary/unary.h"
#include "simd/vec_math.h"

namespace sparsert {
namespace SRT_ISA {

SRT_NOINLINE void ApplyToVectors(const Activation& act, float* vectors, int n, int64_t step) {
  const Vec alpha = Set1(act.alpha);
  const Vec beta = Set1(act.beta);
  SRT_DISPATCH_UNARY(
      act.fn, F, for (int i = 0; i < n; ++i) {
        float* at = vectors + i * step;
        StoreU(at, Apply<F>(LoadU(at), alpha, beta));
      })
}

using UnaryRowFn = void (*)(const float* x, float* y, int64_t n, const Activation& fn);

template <UnaryFn F>
static void UnaryRow(const float* x, float* y, int64_t n, const Activation& fn) {
  const Vec alpha = Set1(fn.alpha);
  const Vec beta = Set1(fn.beta);
  int64_t i = 0;
  for (; i + Vec::kLanes <= n; i += Vec::kLanes) {
    StoreU(y + i, Apply<F>(LoadU(x + i), alpha, beta));
  }
  if (i < n) {
    const Mask tail = FirstN(static_cast<int>(n - i));
    StoreMask(y + i, tail, Apply<F>(LoadMask(x + i, tail), alpha, beta));
  }
}

// Of any function, some vectors at a time.
static void UnaryRowOfAny(const float* x, float* y, int64_t n, const Activation& fn) {
  constexpr int kVecs = 8;
  float lanes[kVecs * Vec::kLanes];
  for (int64_t i = 0; i < n; i += kVecs * Vec::kLanes) {
    const int64_t left = n - i;
    const int count = left < kVecs * Vec::kLanes ? static_cast<int>(left) : kVecs * Vec::kLanes;
    const int vecs = (count + Vec::kLanes - 1) / Vec::kLanes;
    const Mask tail = FirstN(count - (vecs - 1) * Vec::kLanes);
    for (int v = 0; v < vecs; ++v) {
      const float* from = x + i + v * Vec::kLanes;
      StoreU(lanes + v * Vec::kLanes, v + 1 < vecs ? LoadU(from) : LoadMask(from, tail));
    }
    ApplyToVectors(fn, lanes, vecs, Vec::kLanes);
    for (int v = 0; v < vecs; ++v) {
      float* to = y + i + v * Vec::kLanes;
      const Vec result = LoadU(lanes + v * Vec::kLanes);
      if (v + 1 < vecs) {
        StoreU(to, result);
      } else {
        StoreMask(to, tail, result);
      }
    }
  }
}

static void Unary(const void* args_block, void* const* io, int64_t begin, int64_t end, void*) {
  const UnaryArgs& args = *static_cast<const UnaryArgs*>(args_block);
  const float* x = static_cast<const float*>(io[0]);
  float* y = static_cast<float*>(io[1]);
  UnaryRowFn row = UnaryRowOfAny;
  if constexpr (!Vec::kShortCode) {
    SRT_DISPATCH_UNARY(args.fn.fn, F, row = UnaryRow<F>)
  }
  ForEachRow(args.loop, begin, end, [&](const int64_t* offsets, int64_t n) {
    row(x + offsets[1], y + offsets[0], n, args.fn);
  });
}

}  // namespace SRT_ISA
}  // namespace sparsert
