// Lowers one product of packed weights and vectors of packed bytes.
#pragma once

#include "plan/choose_spmv.h"
#include "plan/lower_spmm.h"

namespace sparsert {

// One column, one group, one tap; images are vectors. Chooses a format and appends the step.
Status LowerQspmv(PlanBuilder* b, const SpmmOperands& operands);

}  // namespace sparsert
