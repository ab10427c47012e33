// qattention over NEON.
#define SRT_ISA neon
#include "simd/vec_neon.h"
// The Vec wrapper comes first: what follows is written over it.
#include "simd/dot_neon.h"
// And so is the algorithm.
#include "kernels/qattention/generic.h"

SRT_DEFINE_KERNEL(qattention_i8_neon, Qattention)
