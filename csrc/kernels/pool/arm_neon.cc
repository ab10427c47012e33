// pool in AArch64 NEON.
#define SRT_ISA neon
#include "simd/vec_neon.h"

#include "kernels/pool/generic.h"

SRT_DEFINE_KERNEL(pool_f32_neon, Pool)
SRT_DEFINE_KERNEL(global_pool_f32_neon, GlobalPool)
