// binary in plain C++.
#define SRT_ISA scalar
#include "simd/vec_scalar.h"

#include "kernels/binary/generic.h"

SRT_DEFINE_KERNEL(binary_f32_scalar, Binary)
