// BatchNorm over Vec.
#pragma once

#include "kernels/batch_norm/batch_norm.h"
#include "kernels/define.h"
#include "simd/vec_math.h"

namespace sparsert {
namespace SRT_ISA {

// PerElement: scale and shift run along the row, else they are one number for all of it.
template <UnaryFn F, bool PerElement>
static void BatchNormRow(const float* x, const float* scale, const float* shift, float* y,
                         int64_t n, const Activation& act) {
  const ActivationVec av = MakeActivation(act);
  Vec a = Set1(scale[0]);
  Vec b = Set1(shift[0]);
  int64_t i = 0;
  for (; i + Vec::kLanes <= n; i += Vec::kLanes) {
    if (PerElement) {
      a = LoadU(scale + i);
      b = LoadU(shift + i);
    }
    StoreU(y + i, Activate<F>(Fma(LoadU(x + i), a, b), av));
  }
  if (i < n) {
    const Mask tail = FirstN(static_cast<int>(n - i));
    if (PerElement) {
      a = LoadMask(scale + i, tail);
      b = LoadMask(shift + i, tail);
    }
    StoreMask(y + i, tail, Activate<F>(Fma(LoadMask(x + i, tail), a, b), av));
  }
}

template <UnaryFn F>
static void BatchNormRows(const BatchNormArgs& args, void* const* io, int64_t begin, int64_t end) {
  const float* x = static_cast<const float*>(io[0]);
  const float* scale = static_cast<const float*>(io[1]);
  const float* shift = static_cast<const float*>(io[2]);
  float* y = static_cast<float*>(io[3]);
  const auto row = args.loop.row_strides[2] == 0 ? BatchNormRow<F, false> : BatchNormRow<F, true>;
  ForEachRow(args.loop, begin, end, [&](const int64_t* offsets, int64_t n) {
    row(x + offsets[1], scale + offsets[2], shift + offsets[2], y + offsets[0], n, args.act);
  });
}

static void BatchNorm(const void* args_block, void* const* io, int64_t begin, int64_t end, void*) {
  const BatchNormArgs& args = *static_cast<const BatchNormArgs*>(args_block);
  SRT_DISPATCH_ACTIVATION(args.act.fn, F, BatchNormRows<F>(args, io, begin, end))
}

}  // namespace SRT_ISA
}  // namespace sparsert
