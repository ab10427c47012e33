// quantize over NEON.
#define SRT_ISA neon
#include "simd/vec_neon.h"
// The Vec wrapper comes first: what follows is written over it.
#include "simd/dot_neon.h"
// And so is the algorithm.
#include "kernels/quantize/generic.h"

SRT_DEFINE_KERNEL(quantize_i8_neon, Quantize)
SRT_DEFINE_KERNEL(dequantize_i8_neon, Dequantize)
SRT_DEFINE_KERNEL(qadd_i8_neon, QAdd)
SRT_DEFINE_KERNEL(qlookup_i8_neon, QLookup)
SRT_DEFINE_KERNEL(qelementwise_i8_neon, QElementwise)
SRT_DEFINE_KERNEL(qrange_f32_neon, QRange)
SRT_DEFINE_KERNEL(qdynamic_i8_neon, QDynamic)
