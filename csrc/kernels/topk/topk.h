// TopK: the k largest or smallest of x[o, n, i] along n, the most extreme first, and where they
// stood.
//
// Of equal values the first comes first. NaN is larger and smaller than any number.
#pragma once

#include "base/tensor_desc.h"
#include "kernels/kernel.h"

namespace sparsert {

// io: x, plain [outer, size, inner] of `dtype`; values, plain [outer, k, inner], or nullptr;
// positions, plain int64 [outer, k, inner], or nullptr.
struct TopkArgs {
  DType dtype;
  bool largest;
  int64_t outer;
  int64_t size;
  int64_t k;  // 0 to size
  int64_t inner;
};

// Work items: pairs of o and i.
int64_t TopkItems(const TopkArgs& args);
size_t TopkScratchBytes(const TopkArgs& args);

// One kernel for every instruction set; false for f16 and bool.
bool SelectTopk(const TopkArgs& args, Isa isa, Kernel* kernel);

}  // namespace sparsert
