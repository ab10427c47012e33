// layer_norm in AArch64 NEON.
#define SRT_ISA neon
#include "simd/vec_neon.h"

#include "kernels/layer_norm/generic.h"

SRT_DEFINE_KERNEL(layer_norm_f32_neon, LayerNorm)
