// recurrent in AVX-512.
#define SRT_ISA avx512
#include "simd/vec_avx512.h"

#include "kernels/recurrent/generic.h"

SRT_DEFINE_KERNEL(recurrent_f32_avx512, Recurrent)
