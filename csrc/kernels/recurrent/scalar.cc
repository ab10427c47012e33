// recurrent in plain C++.
#define SRT_ISA scalar
#include "simd/vec_scalar.h"

#include "kernels/recurrent/generic.h"

SRT_DEFINE_KERNEL(recurrent_f32_scalar, Recurrent)
