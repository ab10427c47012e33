// Times one candidate kernel on its real shapes.
#pragma once

#include "plan/choose_spmm.h"

namespace sparsert {

// Runs `args` on private buffers of the layer's own size, with the weights' cache lines evicted
// before each run, and returns the median of the runs in nanoseconds (one thread).
Status MeasureSpmm(const SpmmArgs& args, const SpmmChoice& choice, uint64_t (*clock)(),
                   const Allocator* allocator, double* ns);

}  // namespace sparsert
