// BatchNorm: y = act(x * scale[c] + shift[c]), c the index along dimension 1.
#pragma once

#include "base/functions.h"
#include "kernels/kernel.h"
#include "kernels/loop.h"

namespace sparsert {

// io: x, scale[C], shift[C], y. y may be x when both have the same strides.
struct BatchNormArgs {
  Activation act;
  Loop<3> loop;  // y, x, scale and shift
};

// x and y: f32 of one shape, rank >= 2.
BatchNormArgs MakeBatchNormArgs(const TensorDesc& x, const TensorDesc& y, const Activation& act);

// Work items: rows (planes), or chunks of long rows.
int64_t BatchNormItems(const BatchNormArgs& args);

bool SelectBatchNorm(const BatchNormArgs& args, Isa isa, Kernel* kernel);

}  // namespace sparsert
