// pool in AVX-512.
#define SRT_ISA avx512
#include "simd/vec_avx512.h"

#include "kernels/pool/generic.h"

SRT_DEFINE_KERNEL(pool_f32_avx512, Pool)
SRT_DEFINE_KERNEL(global_pool_f32_avx512, GlobalPool)
