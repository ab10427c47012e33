// qattention over plain C++.
#define SRT_ISA scalar
#include "simd/vec_scalar.h"
// The Vec wrapper comes first: what follows is written over it.
#include "simd/dot_scalar.h"
// And so is the algorithm.
#include "kernels/qattention/generic.h"

SRT_DEFINE_KERNEL(qattention_i8_scalar, Qattention)
