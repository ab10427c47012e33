// Binary: y = act(fn(a, b)) elementwise with numpy broadcasting; the functions of BinaryFn.
//
// Pow and Fmod follow C's powf and fmodf; Mod adds b where the signs differ. Min and Max give NaN
// when either operand is NaN.
#pragma once

#include "base/functions.h"
#include "kernels/kernel.h"
#include "kernels/loop.h"

namespace sparsert {

// io: a, b, y. y may be an operand that has y's shape and strides.
struct BinaryArgs {
  BinaryFn fn;
  Activation act;
  Loop<3> loop;  // y, a, b
};

// a, b, y: f32; the shape of y is the broadcast of the other two.
BinaryArgs MakeBinaryArgs(BinaryFn fn, const TensorDesc& a, const TensorDesc& b,
                          const TensorDesc& y, const Activation& act);

// Work items: rows, or chunks of long rows.
int64_t BinaryItems(const BinaryArgs& args);

bool SelectBinary(const BinaryArgs& args, Isa isa, Kernel* kernel);

}  // namespace sparsert
