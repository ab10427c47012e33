// phases in NEON.
#define SRT_ISA neon
#include "simd/vec_neon.h"

#include "kernels/phases/generic.h"

SRT_DEFINE_KERNEL(phases_f32_neon, Phases)
