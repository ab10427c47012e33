// Unary: y[i] = fn(x[i]; alpha, beta), the formulas of UnaryFn in base/functions.h.
#pragma once

#include "base/functions.h"
#include "kernels/kernel.h"
#include "kernels/loop.h"

namespace sparsert {

// io: x, y. y may be x when both have the same strides.
struct UnaryArgs {
  Activation fn;
  Loop<2> loop;  // y, x
};

// x and y: f32 of one shape, each with its own strides.
UnaryArgs MakeUnaryArgs(const TensorDesc& x, const TensorDesc& y, const Activation& fn);

// Work items: rows, or chunks of long rows.
int64_t UnaryItems(const UnaryArgs& args);

bool SelectUnary(const UnaryArgs& args, Isa isa, Kernel* kernel);

}  // namespace sparsert
