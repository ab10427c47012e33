// prelu in AVX-512.
#define SRT_ISA avx512
#include "simd/vec_avx512.h"

#include "kernels/prelu/generic.h"

SRT_DEFINE_KERNEL(prelu_f32_avx512, PRelu)
