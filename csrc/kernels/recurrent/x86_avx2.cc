// recurrent in AVX2 and FMA.
#define SRT_ISA avx2
#include "simd/vec_avx2.h"

#include "kernels/recurrent/generic.h"

SRT_DEFINE_KERNEL(recurrent_f32_avx2, Recurrent)
