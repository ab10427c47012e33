// winograd kernels over NEON.
#define SRT_ISA neon
#include "simd/vec_neon.h"
// The Vec wrapper comes first: the algorithm is written over it.
#include "kernels/winograd/generic.h"
