// attention in plain C++.
#define SRT_ISA scalar
#include "simd/vec_scalar.h"

#include "kernels/attention/generic.h"

SRT_DEFINE_KERNEL(attention_f32_scalar, Attention)
