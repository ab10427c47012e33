// unary in AVX-512.
#define SRT_ISA avx512
#include "simd/vec_avx512.h"

#include "kernels/unary/generic.h"

SRT_DEFINE_KERNEL(unary_f32_avx512, Unary)
