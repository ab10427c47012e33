// Reduce: y = fn over the elements of x along some dimensions; the functions of ReduceFn.
//
//   Mean = Sum / count, L1 = sum |x|, L2 = sqrt(SumSquare), LogSum = log(Sum),
//   LogSumExp = max + log(sum exp(x - max)). Max and Min give NaN where an element is NaN.
// Sums are taken in float over short runs, then in double or in a second level of partial sums.
#pragma once

#include "base/functions.h"
#include "kernels/kernel.h"
#include "kernels/loop.h"

namespace sparsert {

// io: x, y.
struct ReduceArgs {
  ReduceFn fn;
  bool along_rows;  // the elements of a result lie side by side in x; else the results do
  int64_t count;    // elements of a result
  Loop<2> kept;     // y, x: over the results
  Loop<1> reduced;  // x: over the elements of a result
};

// x and y: f32. `reduced[d]`: whether dimension d of x is reduced. y has the shape of x with those
// dimensions of size 1 (rank of x) or without them.
ReduceArgs MakeReduceArgs(ReduceFn fn, const TensorDesc& x, const bool* reduced,
                          const TensorDesc& y);

// Work items: groups of results.
int64_t ReduceItems(const ReduceArgs& args);

bool SelectReduce(const ReduceArgs& args, Isa isa, Kernel* kernel);

}  // namespace sparsert
