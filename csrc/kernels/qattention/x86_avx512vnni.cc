// qattention over AVX512-VNNI.
#define SRT_ISA avx512vnni
#include "simd/vec_avx512.h"
// The Vec wrapper comes first: what follows is written over it.
#include "simd/dot_avx512vnni.h"
// And so is the algorithm.
#include "kernels/qattention/generic.h"

SRT_DEFINE_KERNEL(qattention_i8_avx512vnni, Qattention)
