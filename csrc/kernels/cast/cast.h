// Cast: y[i] = x[i] as another type, between all types of DType.
//
// Floats become integers by truncation, saturated to the type's range, NaN becomes 0; integers
// wrap around; floats become f16 by rounding half to even (f64 through f32); bool is x != 0.
#pragma once

#include "kernels/kernel.h"
#include "kernels/loop.h"

namespace sparsert {

// io: x, y; they do not overlap.
struct CastArgs {
  DType from;
  DType to;
  Loop<2> loop;  // y, x
};

// x and y of one shape, each of any type but kUndefined.
CastArgs MakeCastArgs(const TensorDesc& x, const TensorDesc& y);

// Work items: rows, or chunks of long rows.
int64_t CastItems(const CastArgs& args);

// One kernel for every instruction set; false for a type that the core does not know.
bool SelectCast(const CastArgs& args, Isa isa, Kernel* kernel);

}  // namespace sparsert
