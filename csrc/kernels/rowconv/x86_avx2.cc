// rowconv kernels over AVX2 and FMA.
#define SRT_ISA avx2
#include "simd/vec_avx2.h"
// The Vec wrapper comes first: the algorithm is written over it.
#include "kernels/rowconv/generic.h"
