// PRelu: y = x < 0 ? slope * x : x; slope is broadcast to the shape of x.
#pragma once

#include "kernels/kernel.h"
#include "kernels/loop.h"

namespace sparsert {

// io: x, slope, y. y may be x when both have the same strides.
struct PReluArgs {
  Loop<3> loop;  // y, x, slope
};

// x, slope, y: f32; y has the shape of x.
PReluArgs MakePReluArgs(const TensorDesc& x, const TensorDesc& slope, const TensorDesc& y);

// Work items: rows, or chunks of long rows.
int64_t PReluItems(const PReluArgs& args);

bool SelectPRelu(const PReluArgs& args, Isa isa, Kernel* kernel);

}  // namespace sparsert
