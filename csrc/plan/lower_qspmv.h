// Lowers one product of packed weights and vectors of packed bytes.
#pragma once

#include "plan/choose_spmv.h"
#include "plan/lower_spmm.h"

namespace sparsert {

// One column, one group, one tap; images are vectors of `x_planes` groups of four bytes, and of
// `y_planes` groups or floats of the result. Chooses a format, for one vector after the other or
// for all as columns, and appends the steps.
Status LowerQspmv(PlanBuilder* b, const SpmmOperands& operands, int64_t x_planes, int64_t y_planes);

}  // namespace sparsert
