// rowconv kernels over AArch64 NEON.
#define SRT_ISA neon
#include "simd/vec_neon.h"
// The Vec wrapper comes first: the algorithm is written over it.
#include "kernels/rowconv/generic.h"
