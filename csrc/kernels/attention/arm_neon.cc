// attention in AArch64 NEON.
#define SRT_ISA neon
#include "simd/vec_neon.h"

#include "kernels/attention/generic.h"

SRT_DEFINE_KERNEL(attention_f32_neon, Attention)
