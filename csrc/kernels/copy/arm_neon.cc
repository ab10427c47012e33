// copy in AArch64 NEON.
#define SRT_ISA neon
#include "simd/vec_neon.h"

#include "kernels/copy/generic.h"

SRT_DEFINE_KERNEL(copy_any_neon, Copy)
