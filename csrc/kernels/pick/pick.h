// Pick: rows of y are rows of x at given places.
//
//   y[t, r] = x[base(t) + sum_j index[t, j] * stride[j] + r]
// with base(t) = sum_d t_d * base_stride[d] for t = (t_0, t_1, ...). GatherElements and GatherND.
// An index outside of [-size, size) is reported, and nothing is written for it.
#pragma once

#include "base/fault.h"
#include "base/tensor_desc.h"
#include "kernels/kernel.h"

namespace sparsert {

// io: x, plain; indices, plain [tuples, depth] of int32 or int64; y, plain [tuples, row];
// IndexFault.
struct PickArgs {
  int element_bytes;  // 1, 2, 4 or 8
  DType index_dtype;
  int rank;                       // of tuples
  int64_t dims[kMaxRank];         // [rank] their product is `tuples`
  int64_t base_stride[kMaxRank];  // [rank]
  int depth;                      // indices of a tuple, at most kMaxRank
  int64_t size[kMaxRank];         // [depth] of the dimensions that they index
  int64_t stride[kMaxRank];       // [depth] elements
  int64_t tuples;
  int64_t row;  // elements
};

// y has the shape of the indices.
PickArgs MakeGatherElementsArgs(const TensorDesc& x, int axis, const TensorDesc& indices);
PickArgs MakeGatherNdArgs(const TensorDesc& x, int batch_dims, const TensorDesc& indices);

// Work items: tuples.
inline int64_t PickItems(const PickArgs& args) { return args.tuples; }

// One kernel for every instruction set.
bool SelectPick(const PickArgs& args, Isa isa, Kernel* kernel);

// Calls fn(t, place in x) for the tuples [begin, end) of io's `indices`; not for those with an
// index outside, which it reports.
template <typename Fn>
void ForEachPlace(const PickArgs& args, const void* indices, int64_t begin, int64_t end,
                  void* fault, Fn fn) {
  const int last = args.rank - 1;
  const int64_t run = last < 0 ? 1 : args.dims[last];
  const int64_t step = last < 0 ? 0 : args.base_stride[last];
  const int depth = args.depth;
  // Indices of 32 bits are widened, a part at a time: no code for each type.
  constexpr int64_t kPart = 128;
  int64_t wide[kPart];
  const bool is_short = args.index_dtype == DType::kI32;
  // Along the last dimension, the place moves by a step: no divisions.
  for (int64_t t = begin; t < end;) {
    int64_t base = t % run * step;
    int64_t outer = t / run;
    int64_t stop = t + (run - t % run) < end ? t + (run - t % run) : end;
    const int64_t* index = static_cast<const int64_t*>(indices) + t * depth;
    if (is_short && depth > 0) {
      if (stop - t > kPart / depth) stop = t + kPart / depth;
      const int32_t* narrow = static_cast<const int32_t*>(indices) + t * depth;
      for (int64_t i = 0; i < (stop - t) * depth; ++i) wide[i] = narrow[i];
      index = wide;
    }
    for (int d = last - 1; d >= 0; --d) {
      base += outer % args.dims[d] * args.base_stride[d];
      outer /= args.dims[d];
    }
    for (; t < stop; ++t, base += step, index += depth) {
      int64_t place = base;
      int j = 0;
      for (; j < depth; ++j) {
        int64_t at = index[j];
        if (at < 0) at += args.size[j];
        if (at < 0 || at >= args.size[j]) {
          ReportIndex(fault, index[j], args.size[j], -args.size[j]);
          break;
        }
        place += at * args.stride[j];
      }
      if (j == depth) fn(t, place);
    }
  }
}

}  // namespace sparsert
