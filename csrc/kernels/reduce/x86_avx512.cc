// reduce in AVX-512.
#define SRT_ISA avx512
#include "simd/vec_avx512.h"

#include "kernels/reduce/generic.h"

SRT_DEFINE_KERNEL(reduce_f32_avx512, Reduce)
