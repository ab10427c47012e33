// softmax in AVX-512.
#define SRT_ISA avx512
#include "simd/vec_avx512.h"

#include "kernels/softmax/generic.h"

SRT_DEFINE_KERNEL(softmax_f32_avx512, Softmax)
