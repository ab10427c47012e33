// phases in AVX-512.
#define SRT_ISA avx512
#include "simd/vec_avx512.h"

#include "kernels/phases/generic.h"

SRT_DEFINE_KERNEL(phases_f32_avx512, Phases)
