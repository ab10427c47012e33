// Lowers a strided ConvTranspose: its output's phases are convolutions of stride 1.
#pragma once

#include "plan/builder.h"

namespace sparsert {

// Whether it can be computed so. By taps of its own window, most lanes of a tap would be zeros.
bool HasOutputPhases(const Window& window, int64_t groups);

Status LowerOutputPhases(PlanBuilder* b, const Window& window);

}  // namespace sparsert
