// resize in AVX2 and FMA.
#define SRT_ISA avx2
#include "simd/vec_avx2.h"

#include "kernels/resize/generic.h"
#include "kernels/resize/nearest.h"

SRT_DEFINE_KERNEL(resize_linear_f32_avx2, ResizeLinear)
SRT_DEFINE_KERNEL(resize_axis_f32_avx2, ResizeAxis)
SRT_DEFINE_KERNEL(resize_nearest_any_avx2, ResizeNearest)
