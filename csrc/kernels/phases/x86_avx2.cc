// phases in AVX2.
#define SRT_ISA avx2
#include "simd/vec_avx2.h"

#include "kernels/phases/generic.h"

SRT_DEFINE_KERNEL(phases_f32_avx2, Phases)
