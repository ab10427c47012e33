// The one symbol that an ISA translation unit exports per kernel.
#pragma once

#include <cstdint>

#include "base/arch.h"

// Defines the kernel `name` (as in kernels.inc) over SRT_ISA::function.
#define SRT_DEFINE_KERNEL(name, function)                                                   \
  namespace sparsert {                                                                      \
  void name(const void* args, void* const* io, int64_t begin, int64_t end, void* scratch);  \
  void name(const void* args, void* const* io, int64_t begin, int64_t end, void* scratch) { \
    SRT_ISA::function(args, io, begin, end, scratch);                                       \
  }                                                                                         \
  }  // namespace sparsert
