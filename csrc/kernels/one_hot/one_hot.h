// OneHot: y[o, n, i] = n is index[o, i] ? on : off, for n in [0, depth).
//
// Indices in [-depth, 0) count from the end; others outside of [0, depth) give off alone.
#pragma once

#include "base/tensor_desc.h"
#include "kernels/kernel.h"

namespace sparsert {

// io: indices, plain [outer, inner] of `index_dtype`; values, plain [2]: off, on; y, plain
// [outer, depth, inner].
struct OneHotArgs {
  DType index_dtype;
  int element_bytes;  // of values and y
  int64_t outer;
  int64_t depth;
  int64_t inner;
};

// Work items: o.
int64_t OneHotItems(const OneHotArgs& args);

// One kernel for every instruction set; false for indices of f16 or bool.
bool SelectOneHot(const OneHotArgs& args, Isa isa, Kernel* kernel);

}  // namespace sparsert
