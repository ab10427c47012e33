// resize in AVX-512.
#define SRT_ISA avx512
#include "simd/vec_avx512.h"

#include "kernels/resize/generic.h"

SRT_DEFINE_KERNEL(resize_linear_f32_avx512, ResizeLinear)
SRT_DEFINE_KERNEL(resize_axis_f32_avx512, ResizeAxis)
