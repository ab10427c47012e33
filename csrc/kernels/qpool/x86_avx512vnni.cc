// qpool over AVX-512.
#define SRT_ISA avx512vnni
#include "simd/vec_avx512.h"
// The Vec wrapper comes first: what follows is written over it.
#include "simd/dot_avx512vnni.h"
// And so is the algorithm.
#include "kernels/qpool/generic.h"

SRT_DEFINE_KERNEL(qmaxpool_i8_avx512vnni, QmaxPool)
