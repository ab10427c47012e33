// matmul in AVX2 and FMA.
#define SRT_ISA avx2
#include "simd/vec_avx2.h"

#include "kernels/matmul/generic.h"

SRT_DEFINE_KERNEL(matmul_f32_avx2, MatMul)
