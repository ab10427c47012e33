// layer_norm in plain C++.
#define SRT_ISA scalar
#include "simd/vec_scalar.h"

#include "kernels/layer_norm/generic.h"

SRT_DEFINE_KERNEL(layer_norm_f32_scalar, LayerNorm)
