// copy in AVX2 and FMA.
#define SRT_ISA avx2
#include "simd/vec_avx2.h"

#include "kernels/copy/generic.h"

SRT_DEFINE_KERNEL(copy_any_avx2, Copy)
