// softmax in AArch64 NEON.
#define SRT_ISA neon
#include "simd/vec_neon.h"

#include "kernels/softmax/generic.h"

SRT_DEFINE_KERNEL(softmax_f32_neon, Softmax)
