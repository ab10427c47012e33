// prelu in AArch64 NEON.
#define SRT_ISA neon
#include "simd/vec_neon.h"

#include "kernels/prelu/generic.h"

SRT_DEFINE_KERNEL(prelu_f32_neon, PRelu)
