// pool in plain C++.
#define SRT_ISA scalar
#include "simd/vec_scalar.h"

#include "kernels/pool/generic.h"

SRT_DEFINE_KERNEL(pool_f32_scalar, Pool)
SRT_DEFINE_KERNEL(global_pool_f32_scalar, GlobalPool)
