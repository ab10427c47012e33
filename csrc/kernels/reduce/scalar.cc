// reduce in plain C++.
#define SRT_ISA scalar
#include "simd/vec_scalar.h"

#include "kernels/reduce/generic.h"

SRT_DEFINE_KERNEL(reduce_f32_scalar, Reduce)
