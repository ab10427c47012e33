// sample in plain C++.
#define SRT_ISA scalar
#include "simd/vec_scalar.h"

#include "kernels/sample/generic.h"

SRT_DEFINE_KERNEL(grid_sample_f32_scalar, GridSample)
SRT_DEFINE_KERNEL(roi_align_f32_scalar, RoiAlign)
SRT_DEFINE_KERNEL(deform_columns_f32_scalar, DeformColumns)
