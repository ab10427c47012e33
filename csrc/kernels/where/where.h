// Where: y = condition ? a : b elementwise with numpy broadcasting, of any type.
#pragma once

#include "kernels/kernel.h"
#include "kernels/loop.h"

namespace sparsert {

// io: condition, a, b, y; y overlaps none of them.
struct WhereArgs {
  int element_bytes;  // 1, 2, 4 or 8
  Loop<4> loop;       // y, condition, a, b
};

// condition: bool; a, b and y of one type; the shape of y is the broadcast of the others.
WhereArgs MakeWhereArgs(const TensorDesc& condition, const TensorDesc& a, const TensorDesc& b,
                        const TensorDesc& y);

// Work items: rows, or chunks of long rows.
int64_t WhereItems(const WhereArgs& args);

// One kernel for every instruction set.
bool SelectWhere(const WhereArgs& args, Isa isa, Kernel* kernel);

}  // namespace sparsert
