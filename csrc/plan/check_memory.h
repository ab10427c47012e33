// Refuses shapes that ask for more memory than there is.
#pragma once

#include "plan/plan.h"

namespace sparsert {

// kOutOfMemory names the first node with an output of more than `limit` bytes (0: no limit). What
// is known at plan time takes no memory of a run.
Status CheckTensorBytes(const Graph& graph, const ShapeTable& table, uint64_t limit);

// The same for outputs of the graph alone.
Status CheckOutputBytes(const Graph& graph, const ShapeTable& table, uint64_t limit);

// The same for the arena.
Status CheckArenaBytes(const Plan& plan, uint64_t limit);

}  // namespace sparsert
