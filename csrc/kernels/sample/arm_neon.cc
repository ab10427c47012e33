// sample in AArch64 NEON.
#define SRT_ISA neon
#include "simd/vec_neon.h"

#include "kernels/sample/generic.h"

SRT_DEFINE_KERNEL(grid_sample_f32_neon, GridSample)
SRT_DEFINE_KERNEL(roi_align_f32_neon, RoiAlign)
SRT_DEFINE_KERNEL(deform_columns_f32_neon, DeformColumns)
