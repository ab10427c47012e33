// ArgReduce: y[o, i] = the position along n of the largest or smallest of x[o, n, i].
//
// Of equal values the first counts, or the last. NaN is larger and smaller than any number.
#pragma once

#include "base/tensor_desc.h"
#include "kernels/kernel.h"

namespace sparsert {

// io: x, plain [outer, size, inner] of `dtype`; y, plain int64 [outer, inner].
struct ArgReduceArgs {
  DType dtype;
  bool largest;
  bool last;
  int64_t outer;
  int64_t size;  // at least 1
  int64_t inner;
};

// Work items: results.
int64_t ArgReduceItems(const ArgReduceArgs& args);

// One kernel for every instruction set; false for f16 and bool.
bool SelectArgReduce(const ArgReduceArgs& args, Isa isa, Kernel* kernel);

}  // namespace sparsert
