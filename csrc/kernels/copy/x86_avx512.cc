// copy in AVX-512.
#define SRT_ISA avx512
#include "simd/vec_avx512.h"

#include "kernels/copy/generic.h"

SRT_DEFINE_KERNEL(copy_any_avx512, Copy)
