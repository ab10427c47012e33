// qdwconv over NEON with dot products.
#define SRT_ISA neondot
#define SRT_NEON_DOT
#include "simd/vec_neon.h"
// The Vec wrapper comes first: what follows is written over it.
#include "simd/dot_neon.h"
// And so is the algorithm.
#include "kernels/qdwconv/generic.h"

SRT_DEFINE_KERNEL(qdwconv_i8_neondot, Qdwconv)
