// Times candidate kernels on their real shapes.
#pragma once

#include "plan/choose_spmm.h"

namespace sparsert {

// Runs the candidates in turn on private buffers of the layer's own size and writes the median of
// each one's runs in nanoseconds (one thread) to ns[count]. Before each run the weights' cache
// lines are evicted and the branch predictor is made to forget the layer, as the rest of a model
// would do. All `args` are of one layer.
Status MeasureSpmm(const SpmmArgs* const* args, const SpmmChoice* choices, int count,
                   uint64_t (*clock)(), const Allocator* allocator, double* ns);

}  // namespace sparsert
