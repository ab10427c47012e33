// matmul in plain C++.
#define SRT_ISA scalar
#include "simd/vec_scalar.h"

#include "kernels/matmul/generic.h"

SRT_DEFINE_KERNEL(matmul_f32_scalar, MatMul)
