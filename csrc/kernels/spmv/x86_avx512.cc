// spmv kernels over AVX-512.
#define SRT_ISA avx512
#include "simd/vec_avx512.h"
// The Vec wrapper comes first: the algorithm is written over it.
#include "kernels/spmv/generic.h"
// Floats are permuted here alone.
#include "simd/perm_avx512.h"
// And the walk over them.
#include "kernels/spmv/perm.h"
