// qattention over AVX2.
#define SRT_ISA avx2
#include "simd/vec_avx2.h"
// The Vec wrapper comes first: what follows is written over it.
#include "simd/dot_avx2.h"
// And so is the algorithm.
#include "kernels/qattention/generic.h"

SRT_DEFINE_KERNEL(qattention_i8_avx2, Qattention)
