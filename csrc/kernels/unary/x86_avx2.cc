// unary in AVX2 and FMA.
#define SRT_ISA avx2
#include "simd/vec_avx2.h"

#include "kernels/unary/generic.h"

SRT_DEFINE_KERNEL(unary_f32_avx2, Unary)
