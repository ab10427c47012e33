// Unary over Vec.
#pragma once

#include "kernels/define.h"
#include "kernels/unary/unary.h"
#include "simd/vec_math.h"

namespace sparsert {
namespace SRT_ISA {

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

static void Unary(const void* args_block, void* const* io, int64_t begin, int64_t end, void*) {
  const UnaryArgs& args = *static_cast<const UnaryArgs*>(args_block);
  const float* x = static_cast<const float*>(io[0]);
  float* y = static_cast<float*>(io[1]);
  UnaryRowFn row = nullptr;
  SRT_DISPATCH_UNARY(args.fn.fn, F, row = UnaryRow<F>)
  ForEachRow(args.loop, begin, end, [&](const int64_t* offsets, int64_t n) {
    row(x + offsets[1], y + offsets[0], n, args.fn);
  });
}

}  // namespace SRT_ISA
}  // namespace sparsert
