// reduce in AArch64 NEON.
#define SRT_ISA neon
#include "simd/vec_neon.h"

#include "kernels/reduce/generic.h"

SRT_DEFINE_KERNEL(reduce_f32_neon, Reduce)
