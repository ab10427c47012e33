// Which graph inputs a plan depends on by value, not by shape alone.
#pragma once

#include "graph/graph.h"

namespace sparsert {

// needed[i]: graph input i gives a shape, axes, pads or the like, directly or through arithmetic
// that is folded at plan time, and is no matrix or the like. Such inputs are small; a plan is made
// for their values.
Status FindPlanInputs(const Graph& graph, Array<bool>* needed);

}  // namespace sparsert
