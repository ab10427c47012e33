// qspmm kernels over AMX: tile registers of bytes.
#define SRT_ISA amx
#include "simd/vec_avx512.h"
// The Vec wrapper comes first: what follows is written over it.
#include "simd/dot_avx512vnni.h"
// And the tile registers.
#include "simd/tiles_amx.h"
// And so is the algorithm.
#include "kernels/qspmm/squares.h"
