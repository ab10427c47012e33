// softmax in plain C++.
#define SRT_ISA scalar
#include "simd/vec_scalar.h"

#include "kernels/softmax/generic.h"

SRT_DEFINE_KERNEL(softmax_f32_scalar, Softmax)
