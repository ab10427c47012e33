// PRelu over Vec.
#pragma once

#include "kernels/define.h"
#include "kernels/prelu/prelu.h"
#include "simd/vec_math.h"

namespace sparsert {
namespace SRT_ISA {

static void PRelu(const void* args_block, void* const* io, int64_t begin, int64_t end, void*) {
  const PReluArgs& args = *static_cast<const PReluArgs*>(args_block);
  const float* x = static_cast<const float*>(io[0]);
  const float* slope = static_cast<const float*>(io[1]);
  float* y = static_cast<float*>(io[2]);
  const bool per_element = args.loop.row_strides[2] != 0;
  ForEachRow(args.loop, begin, end, [&](const int64_t* offsets, int64_t n) {
    const float* xs = x + offsets[1];
    const float* ss = slope + offsets[2];
    float* ys = y + offsets[0];
    Vec s = Set1(ss[0]);
    int64_t i = 0;
    for (; i + Vec::kLanes <= n; i += Vec::kLanes) {
      if (per_element) s = LoadU(ss + i);
      const Vec v = LoadU(xs + i);
      StoreU(ys + i, Select(Less(v, Zero()), Mul(s, v), v));
    }
    if (i < n) {
      const Mask tail = FirstN(static_cast<int>(n - i));
      if (per_element) s = LoadMask(ss + i, tail);
      const Vec v = LoadMask(xs + i, tail);
      StoreMask(ys + i, tail, Select(Less(v, Zero()), Mul(s, v), v));
    }
  });
}

}  // namespace SRT_ISA
}  // namespace sparsert
