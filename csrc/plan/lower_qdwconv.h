// Lowers depthwise convolutions of packed bytes to qdwconv.
#pragma once

#include "plan/lower_spmm.h"

namespace sparsert {

// Whether qdwconv has a kernel for the window.
bool IsQdwconv(const Window& window);

// `operands`: of a depthwise layer whose output is bytes.
Status LowerQdwconv(PlanBuilder* b, const SpmmOperands& operands);

}  // namespace sparsert
