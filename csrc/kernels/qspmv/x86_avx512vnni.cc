// qspmv kernels over AVX512-VNNI.
#define SRT_ISA avx512vnni
#include "simd/vec_avx512.h"
// The Vec wrapper comes first: what follows is written over it.
#include "simd/dot_avx512vnni.h"
// And so is the algorithm.
#include "kernels/qspmv/generic.h"
// Bytes are permuted here alone.
#include "simd/perm_avx512.h"
// And the walk over them.
#include "kernels/qspmv/perm.h"
