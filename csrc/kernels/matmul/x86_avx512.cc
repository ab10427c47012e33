// matmul in AVX-512.
#define SRT_ISA avx512
#include "simd/vec_avx512.h"

#include "kernels/matmul/generic.h"

SRT_DEFINE_KERNEL(matmul_f32_avx512, MatMul)
