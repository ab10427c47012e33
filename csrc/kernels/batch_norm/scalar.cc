// batch norm in plain C++.
#define SRT_ISA scalar
#include "simd/vec_scalar.h"

#include "kernels/batch_norm/generic.h"

SRT_DEFINE_KERNEL(batch_norm_f32_scalar, BatchNorm)
