// recurrent in AArch64 NEON.
#define SRT_ISA neon
#include "simd/vec_neon.h"

#include "kernels/recurrent/generic.h"

SRT_DEFINE_KERNEL(recurrent_f32_neon, Recurrent)
