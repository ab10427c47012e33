// quantize over plain C++.
#define SRT_ISA scalar
#include "simd/vec_scalar.h"
// The Vec wrapper comes first: what follows is written over it.
#include "simd/dot_scalar.h"
// And so is the algorithm.
#include "kernels/quantize/generic.h"

SRT_DEFINE_KERNEL(quantize_i8_scalar, Quantize)
SRT_DEFINE_KERNEL(dequantize_i8_scalar, Dequantize)
SRT_DEFINE_KERNEL(qadd_i8_scalar, QAdd)
SRT_DEFINE_KERNEL(qlookup_i8_scalar, QLookup)
SRT_DEFINE_KERNEL(qelementwise_i8_scalar, QElementwise)
SRT_DEFINE_KERNEL(qrange_f32_scalar, QRange)
SRT_DEFINE_KERNEL(qdynamic_i8_scalar, QDynamic)
