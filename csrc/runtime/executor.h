// Walks a plan's steps.
#pragma once

#include "base/budget.h"
#include "base/thread_pool.h"
#include "plan/plan.h"

namespace sparsert {

// `arena`: plan.arena_bytes() bytes, 64-byte aligned, private to this run. `inputs` and `outputs`:
// one row-major buffer per graph input and output, of the plan's shapes. `pool` may be nullptr or
// in use by another run: then this one uses the calling thread alone. `budget`: nullptr, or what
// the cores are counted in: before every step that threads share, the run takes as many workers as
// have cores left, and gives back those whose cores others have taken. `step_ns`: nullptr, or
// [plan.steps] that get each step's time by `clock` (where threads take slices of the batch, in the
// slices of the calling thread). Allocates nothing and never waits for a core. kInvalidArgument
// names the node and the index when data holds one that is outside of its dimension: the run ends
// there, and what the outputs hold is not said.
Status RunPlan(const Graph& graph, const Plan& plan, void* arena, const void* const* inputs,
               void* const* outputs, ThreadPool* pool, Budget* budget, uint64_t* step_ns,
               uint64_t (*clock)());

}  // namespace sparsert
