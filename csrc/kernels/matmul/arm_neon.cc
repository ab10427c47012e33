// matmul in AArch64 NEON.
#define SRT_ISA neon
#include "simd/vec_neon.h"

#include "kernels/matmul/generic.h"

SRT_DEFINE_KERNEL(matmul_f32_neon, MatMul)
