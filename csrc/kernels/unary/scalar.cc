// unary in plain C++.
#define SRT_ISA scalar
#include "simd/vec_scalar.h"

#include "kernels/unary/generic.h"

SRT_DEFINE_KERNEL(unary_f32_scalar, Unary)
