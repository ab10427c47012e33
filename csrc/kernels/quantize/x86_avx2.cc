// quantize over AVX2.
#define SRT_ISA avx2
#include "simd/vec_avx2.h"
// The Vec wrapper comes first: what follows is written over it.
#include "simd/dot_avx2.h"
// And so is the algorithm.
#include "kernels/quantize/generic.h"

SRT_DEFINE_KERNEL(quantize_i8_avx2, Quantize)
SRT_DEFINE_KERNEL(dequantize_i8_avx2, Dequantize)
SRT_DEFINE_KERNEL(qadd_i8_avx2, QAdd)
SRT_DEFINE_KERNEL(qlookup_i8_avx2, QLookup)
SRT_DEFINE_KERNEL(qelementwise_i8_avx2, QElementwise)
SRT_DEFINE_KERNEL(qrange_f32_avx2, QRange)
SRT_DEFINE_KERNEL(qdynamic_i8_avx2, QDynamic)
