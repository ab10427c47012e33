// phases in plain C++.
#define SRT_ISA scalar
#include "simd/vec_scalar.h"

#include "kernels/phases/generic.h"

SRT_DEFINE_KERNEL(phases_f32_scalar, Phases)
