// resize in AVX-512.
#define SRT_ISA avx512
#include "simd/vec_avx512.h"

#include "kernels/resize/generic.h"
#include "kernels/resize/nearest.h"

SRT_DEFINE_KERNEL(resize_linear_f32_avx512, ResizeLinear)
SRT_DEFINE_KERNEL(resize_axis_f32_avx512, ResizeAxis)
SRT_DEFINE_KERNEL(resize_nearest_any_avx512, ResizeNearest)
