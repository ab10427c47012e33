// binary in AVX-512.
#define SRT_ISA avx512
#include "simd/vec_avx512.h"

#include "kernels/binary/generic.h"

SRT_DEFINE_KERNEL(binary_f32_avx512, Binary)
