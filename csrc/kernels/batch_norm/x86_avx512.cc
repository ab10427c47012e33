// batch norm in AVX-512.
#define SRT_ISA avx512
#include "simd/vec_avx512.h"

#include "kernels/batch_norm/generic.h"

SRT_DEFINE_KERNEL(batch_norm_f32_avx512, BatchNorm)
