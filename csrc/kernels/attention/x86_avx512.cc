// attention in AVX-512.
#define SRT_ISA avx512
#include "simd/vec_avx512.h"

#include "kernels/attention/generic.h"

SRT_DEFINE_KERNEL(attention_f32_avx512, Attention)
