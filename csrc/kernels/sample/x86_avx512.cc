// sample in AVX-512.
#define SRT_ISA avx512
#include "simd/vec_avx512.h"

#include "kernels/sample/generic.h"

SRT_DEFINE_KERNEL(grid_sample_f32_avx512, GridSample)
SRT_DEFINE_KERNEL(roi_align_f32_avx512, RoiAlign)
SRT_DEFINE_KERNEL(deform_columns_f32_avx512, DeformColumns)
