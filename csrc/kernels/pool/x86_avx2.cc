// pool in AVX2 and FMA.
#define SRT_ISA avx2
#include "simd/vec_avx2.h"

#include "kernels/pool/generic.h"

SRT_DEFINE_KERNEL(pool_f32_avx2, Pool)
SRT_DEFINE_KERNEL(global_pool_f32_avx2, GlobalPool)
