// What every kernel looks like to the plan and the executor.
#pragma once

#include <cstdint>

#include "base/cpu.h"

namespace sparsert {

// Computes work items [begin, end) of one step. `args` is the family's argument block, filled at
// plan time and constant since; `io` holds the addresses of the step's inputs, then its outputs, in
// the order that the family's header gives (nullptr for an absent input). `scratch` is this
// thread's private memory, of the size that the family's header asks for. Items are independent:
// threads take disjoint ranges of one step at the same time. Never allocates, prints or fails.
using KernelFn = void (*)(const void* args, void* const* io, int64_t begin, int64_t end,
                          void* scratch);

struct Kernel {
  KernelFn run = nullptr;
  const char* name = nullptr;  // <op>_<format>_<dtype>[_<MR>x<NR>]_<isa>
  Isa isa = Isa::kScalar;
};

}  // namespace sparsert
