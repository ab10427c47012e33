// Predicted times corrected by what earlier layers of the plan, like the current one, were measured
// to take.
#pragma once

#include "plan/builder.h"
#include "plan/choose_candidate.h"

namespace sparsert {

// Sets expected_ns and alike of the contest's candidates and puts the best expected first.
void ExpectTimes(const PlanBuilder& b, Contest* contest);

}  // namespace sparsert
