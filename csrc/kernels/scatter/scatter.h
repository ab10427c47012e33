// Scatter: rows of updates go to given places of y, which holds the other elements already.
//
//   y[place(t) + r] = combine(y[place(t) + r], updates[t, r])
// with places as in pick.h. ScatterElements and ScatterND. Rows whose index is outside are
// reported and left out. Rows are taken in order: of several for one place the last counts.
#pragma once

#include "base/functions.h"
#include "kernels/pick/pick.h"

namespace sparsert {

// io: indices, plain; updates, plain [tuples, row]; y, plain; IndexFault.
struct ScatterArgs {
  PickArgs places;
  DType dtype;
  ScatterReduction reduction;
};

// One work item: rows may share places.
inline int64_t ScatterItems(const ScatterArgs&) { return 1; }

// One kernel for every instruction set; false for a reduction of f16 or bool.
bool SelectScatter(const ScatterArgs& args, Isa isa, Kernel* kernel);

}  // namespace sparsert
