// resize in AArch64 NEON.
#define SRT_ISA neon
#include "simd/vec_neon.h"

#include "kernels/resize/generic.h"
#include "kernels/resize/nearest.h"

SRT_DEFINE_KERNEL(resize_linear_f32_neon, ResizeLinear)
SRT_DEFINE_KERNEL(resize_axis_f32_neon, ResizeAxis)
SRT_DEFINE_KERNEL(resize_nearest_any_neon, ResizeNearest)
