// qspmv kernels over NEON.
#define SRT_ISA neon
#include "simd/vec_neon.h"
// The Vec wrapper comes first: what follows is written over it.
#include "simd/dot_neon.h"
// And so is the algorithm.
#include "kernels/qspmv/generic.h"
