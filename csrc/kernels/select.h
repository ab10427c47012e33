// Turns a family's kernels.inc into declarations and a table, and picks a row of it.
//
// A kernels.inc row is SRT_KERNEL(function, isa); rows stand in order of preference. A family's
// <op>.cc reads:
//   #define SRT_KERNEL SRT_DECLARE_KERNEL
//   #include "kernels/<op>/kernels.inc"
//   static const Kernel kKernels[] = {
//   #define SRT_KERNEL SRT_KERNEL_ROW
//   #include "kernels/<op>/kernels.inc"
//   };
// and kernels.inc undefines SRT_KERNEL at its end.
#pragma once

#include "base/arch.h"
#include "kernels/kernel.h"

namespace sparsert {

#define SRT_DECLARE_KERNEL(function, isa) \
  void function(const void* args, void* const* io, int64_t begin, int64_t end, void* scratch);
#define SRT_KERNEL_ROW(function, isa) {function, #function, Isa::isa},

// True when a CPU chosen to run `isa` also runs kernels of `lower`.
static inline bool IsaCovers(Isa isa, Isa lower) {
  const bool same_architecture = (isa < Isa::kNeon) == (lower < Isa::kNeon);
  return lower == Isa::kScalar || (same_architecture && lower <= isa);
}

// The first row that `isa` covers; false when there is none.
template <int N>
static inline bool SelectKernel(const Kernel (&rows)[N], Isa isa, Kernel* kernel) {
  for (const Kernel& row : rows) {
    if (!IsaCovers(isa, row.isa)) continue;
    *kernel = row;
    return true;
  }
  return false;
}

}  // namespace sparsert
