// wstem kernels over AVX-512.
#define SRT_ISA avx512
#include "simd/vec_avx512.h"
// The Vec wrapper comes first: the algorithm is written over it.
#include "kernels/wstem/generic.h"
