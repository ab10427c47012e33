// copy in plain C++.
#define SRT_ISA scalar
#include "simd/vec_scalar.h"

#include "kernels/copy/generic.h"

SRT_DEFINE_KERNEL(copy_any_scalar, Copy)
