// resize in plain C++.
#define SRT_ISA scalar
#include "simd/vec_scalar.h"

#include "kernels/resize/generic.h"
#include "kernels/resize/nearest.h"

SRT_DEFINE_KERNEL(resize_linear_f32_scalar, ResizeLinear)
SRT_DEFINE_KERNEL(resize_axis_f32_scalar, ResizeAxis)
SRT_DEFINE_KERNEL(resize_nearest_any_scalar, ResizeNearest)
