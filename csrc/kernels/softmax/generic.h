// Softmax over Vec: along contiguous elements, or over contiguous results.
#pragma once

#include "kernels/define.h"
#include "kernels/softmax/softmax.h"
#include "simd/vec_math.h"

namespace sparsert {
namespace SRT_ISA {

SRT_INLINE Mask RowMask(int64_t left) {
  return FirstN(left < Vec::kLanes ? static_cast<int>(left) : Vec::kLanes);
}

static void SoftmaxRow(const float* x, float* y, int64_t n, bool log) {
  const Vec lowest = Set1(-__builtin_inff());
  Vec max = lowest;
  for (int64_t i = 0; i < n; i += Vec::kLanes) {
    const Mask m = RowMask(n - i);
    max = Max(max, Select(m, LoadMask(x + i, m), lowest));
  }
  const Vec shift = Set1(ReduceMax(max));
  double total = 0.0;
  for (int64_t done = 0; done < n;) {
    const int64_t stop = n - done < 4096 ? n : done + 4096;
    Vec sum = Zero();
    for (; done < stop; done += Vec::kLanes) {
      const Mask m = RowMask(stop - done);
      const Vec e = Exp(Sub(LoadMask(x + done, m), shift));
      sum = Add(sum, Select(m, e, Zero()));
      if (!log) StoreMask(y + done, m, e);
    }
    done = stop;
    total += ReduceAdd(sum);
  }
  const Vec sum = Set1(static_cast<float>(total));
  const Vec factor = log ? Log(sum) : Div(Set1(1.0f), sum);
  for (int64_t i = 0; i < n; i += Vec::kLanes) {
    const Mask m = RowMask(n - i);
    StoreMask(y + i, m,
              log ? Sub(Sub(LoadMask(x + i, m), shift), factor) : Mul(LoadMask(y + i, m), factor));
  }
}

// A softmax in each of the lanes of the mask.
SRT_INLINE void SoftmaxColumns(const SoftmaxArgs& args, const float* x, float* y, Mask m) {
  Vec max = Set1(-__builtin_inff());
  for (int64_t k = 0; k < args.count; ++k) max = Max(max, LoadMask(x + k * args.x_step, m));
  Vec sum = Zero();
  for (int64_t k = 0; k < args.count; ++k) {
    const Vec e = Exp(Sub(LoadMask(x + k * args.x_step, m), max));
    sum = Add(sum, e);
    if (!args.log) StoreMask(y + k * args.y_step, m, e);
  }
  const Vec factor = args.log ? Log(sum) : Div(Set1(1.0f), sum);
  for (int64_t k = 0; k < args.count; ++k) {
    const Vec r = args.log ? Sub(Sub(LoadMask(x + k * args.x_step, m), max), factor)
                           : Mul(LoadMask(y + k * args.y_step, m), factor);
    StoreMask(y + k * args.y_step, m, r);
  }
}

static void Softmax(const void* args_block, void* const* io, int64_t begin, int64_t end, void*) {
  const SoftmaxArgs& args = *static_cast<const SoftmaxArgs*>(args_block);
  const float* x = static_cast<const float*>(io[0]);
  float* y = static_cast<float*>(io[1]);
  ForEachRow(args.rest, begin, end, [&](const int64_t* offsets, int64_t n) {
    const float* from = x + offsets[1];
    float* to = y + offsets[0];
    if (args.along_rows) {
      for (int64_t i = 0; i < n; ++i) {
        SoftmaxRow(from + i * args.rest.row_strides[1], to + i * args.rest.row_strides[0],
                   args.count, args.log);
      }
    } else {
      for (int64_t i = 0; i < n; i += Vec::kLanes) {
        SoftmaxColumns(args, from + i, to + i, RowMask(n - i));
      }
    }
  });
}

}  // namespace SRT_ISA
}  // namespace sparsert
