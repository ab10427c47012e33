// layer_norm in AVX-512.
#define SRT_ISA avx512
#include "simd/vec_avx512.h"

#include "kernels/layer_norm/generic.h"

SRT_DEFINE_KERNEL(layer_norm_f32_avx512, LayerNorm)
