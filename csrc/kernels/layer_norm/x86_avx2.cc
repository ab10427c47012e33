// layer_norm in AVX2 and FMA.
#define SRT_ISA avx2
#include "simd/vec_avx2.h"

#include "kernels/layer_norm/generic.h"

SRT_DEFINE_KERNEL(layer_norm_f32_avx2, LayerNorm)
