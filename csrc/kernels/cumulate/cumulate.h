// Cumulate: y[o, n, i] = the sum or product of x[o, 0..n, i].
//
// Exclusive: without x[o, n, i]. Reverse: of x[o, n.., i].
#pragma once

#include "base/tensor_desc.h"
#include "kernels/kernel.h"

namespace sparsert {

// io: x, y, plain [outer, size, inner] of `dtype`.
struct CumulateArgs {
  DType dtype;
  bool product;
  bool exclusive;
  bool reverse;
  int64_t outer;
  int64_t size;
  int64_t inner;
};

// Work items: pairs of o and i.
int64_t CumulateItems(const CumulateArgs& args);

// One kernel for every instruction set; false for f16 and bool.
bool SelectCumulate(const CumulateArgs& args, Isa isa, Kernel* kernel);

}  // namespace sparsert
