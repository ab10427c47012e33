// binary in AArch64 NEON.
#define SRT_ISA neon
#include "simd/vec_neon.h"

#include "kernels/binary/generic.h"

SRT_DEFINE_KERNEL(binary_f32_neon, Binary)
