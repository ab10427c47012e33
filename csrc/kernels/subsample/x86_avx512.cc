// subsample in AVX-512.
#define SRT_ISA avx512
#include "simd/vec_avx512.h"

#include "kernels/subsample/generic.h"
