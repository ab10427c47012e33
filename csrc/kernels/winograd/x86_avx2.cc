// winograd kernels over AVX2.
#define SRT_ISA avx2
#include "simd/vec_avx2.h"
// The Vec wrapper comes first: the algorithm is written over it.
#include "kernels/winograd/generic.h"
