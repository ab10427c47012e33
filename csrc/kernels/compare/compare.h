// Compare: y = fn(a, b) as bool, elementwise with numpy broadcasting; the functions of CompareFn.
#pragma once

#include "base/functions.h"
#include "kernels/kernel.h"
#include "kernels/loop.h"

namespace sparsert {

// io: a, b, y. b is not read by kNot. y overlaps neither.
struct CompareArgs {
  CompareFn fn;
  DType dtype;   // of a and b
  Loop<3> loop;  // y, a, b
};

// a and b of one type but f16; kAnd, kOr, kXor and kNot: bool. For kNot, b is a.
CompareArgs MakeCompareArgs(CompareFn fn, const TensorDesc& a, const TensorDesc& b,
                            const TensorDesc& y);

// Work items: rows, or chunks of long rows.
int64_t CompareItems(const CompareArgs& args);

// One kernel for every instruction set; false for a type that it does not know.
bool SelectCompare(const CompareArgs& args, Isa isa, Kernel* kernel);

}  // namespace sparsert
