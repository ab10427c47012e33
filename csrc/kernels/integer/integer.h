// Integer: y = fn(a, b) elementwise on integers, with numpy broadcasting; the functions of
// BinaryFn.
//
// Results wrap around. Division truncates; by zero it gives 0, as Mod and Fmod do. Shifts to the
// right keep the sign; a negative shift counts as one by all bits. A power
// with a negative exponent is what is left of 1 / a^-b.
#pragma once

#include "base/functions.h"
#include "kernels/kernel.h"
#include "kernels/loop.h"

namespace sparsert {

// io: a, b, y. y may be an operand that has y's shape and strides.
struct IntegerArgs {
  BinaryFn fn;
  DType dtype;
  Loop<3> loop;  // y, a, b
};

// a, b, y: of one integer type; the shape of y is the broadcast of the other two.
IntegerArgs MakeIntegerArgs(BinaryFn fn, const TensorDesc& a, const TensorDesc& b,
                            const TensorDesc& y);

// Work items: rows, or chunks of long rows.
int64_t IntegerItems(const IntegerArgs& args);

// One kernel for every instruction set; false for a type that is no integer.
bool SelectInteger(const IntegerArgs& args, Isa isa, Kernel* kernel);

}  // namespace sparsert
