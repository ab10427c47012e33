// sample in AVX2 and FMA.
#define SRT_ISA avx2
#include "simd/vec_avx2.h"

#include "kernels/sample/generic.h"

SRT_DEFINE_KERNEL(grid_sample_f32_avx2, GridSample)
SRT_DEFINE_KERNEL(roi_align_f32_avx2, RoiAlign)
SRT_DEFINE_KERNEL(deform_columns_f32_avx2, DeformColumns)
