// unary in AArch64 NEON.
#define SRT_ISA neon
#include "simd/vec_neon.h"

#include "kernels/unary/generic.h"

SRT_DEFINE_KERNEL(unary_f32_neon, Unary)
