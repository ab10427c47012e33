// prelu in plain C++.
#define SRT_ISA scalar
#include "simd/vec_scalar.h"

#include "kernels/prelu/generic.h"

SRT_DEFINE_KERNEL(prelu_f32_scalar, PRelu)
