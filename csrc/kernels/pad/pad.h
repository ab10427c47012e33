// Pad: y[i] = x[source(i - begin)] per dimension; outside of x a constant, or by reflection, by the
// nearest edge, or wrapped around. Negative pads remove elements, before the mode looks at x.
#pragma once

#include "base/functions.h"
#include "kernels/kernel.h"
#include "kernels/loop.h"

namespace sparsert {

struct PadDim {
  int64_t out;    // elements of y
  int64_t begin;  // elements added in front, >= 0
  int64_t first;  // the first element of x that is kept
  int64_t size;   // how many are
  int64_t x_stride;
  int64_t y_stride;
};

// io: x, y.
struct PadArgs {
  PadMode mode;
  int element_bytes;  // 1, 2, 4 or 8
  uint64_t value;     // bits of the constant in the low bytes
  int64_t unit;       // contiguous elements that are copied or filled together
  int rank;
  PadDim dims[kMaxRank];  // [rank]; rank >= 1
};

// x and y of one type. begin, end: [rank], as in ResolvePad. `value`: one element of that type, or
// nullptr for zero; read during the call.
PadArgs MakePadArgs(PadMode mode, const TensorDesc& x, const int64_t* begin, const int64_t* end,
                    const void* value, const TensorDesc& y);

// Work items: rows of y.
int64_t PadItems(const PadArgs& args);

// One kernel for every instruction set.
bool SelectPad(const PadArgs& args, Isa isa, Kernel* kernel);

}  // namespace sparsert
