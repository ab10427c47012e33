// winograd kernels over plain C++.
#define SRT_ISA scalar
#include "simd/vec_scalar.h"
// The Vec wrapper comes first: the algorithm is written over it.
#include "kernels/winograd/generic.h"
