// subsample in plain C++.
#define SRT_ISA scalar
#include "simd/vec_scalar.h"

#include "kernels/subsample/generic.h"
