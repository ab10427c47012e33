// subsample in AVX2.
#define SRT_ISA avx2
#include "simd/vec_avx2.h"

#include "kernels/subsample/generic.h"
