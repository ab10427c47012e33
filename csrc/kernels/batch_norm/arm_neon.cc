// batch norm in AArch64 NEON.
#define SRT_ISA neon
#include "simd/vec_neon.h"

#include "kernels/batch_norm/generic.h"

SRT_DEFINE_KERNEL(batch_norm_f32_neon, BatchNorm)
