// Scalar arithmetic of shape values; private to csrc/graph.
#pragma once

#include "graph/node_view.h"

namespace sparsert {

// `value` reduced to the range of an integer type, as a C cast does. bool becomes 0 or 1.
int64_t WrapInteger(int64_t value, DType dtype);

// Each returns false when the result is not defined or not representable as int64.
bool FoldBinaryInt(BinaryFn fn, DType dtype, int64_t a, int64_t b, int64_t* out);
bool FoldBinaryFloat(BinaryFn fn, float a, float b, float* out);
bool FoldUnaryInt(UnaryFn fn, DType dtype, int64_t x, int64_t* out);
bool FoldUnaryFloat(UnaryFn fn, float alpha, float beta, float x, float* out);
// The slot of a bool.
int64_t FoldCompareValue(CompareFn fn, DType dtype, int64_t a, int64_t b);
// `from`, `to`: integer types or f32; slots as in ShapeTable::values.
bool FoldCast(DType from, DType to, int64_t slot, int64_t* out);

}  // namespace sparsert
