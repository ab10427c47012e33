// stem kernels over AMX: tile registers of bf16.
#define SRT_ISA amx
#include "simd/vec_avx512.h"
// The Vec wrapper comes first: what follows is written over it.
#include "simd/tiles_amx.h"
// And so is the algorithm.
#include "kernels/stem/generic.h"
