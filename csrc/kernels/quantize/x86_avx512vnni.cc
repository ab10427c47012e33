// quantize over AVX-512.
#define SRT_ISA avx512vnni
#include "simd/vec_avx512.h"
// The Vec wrapper comes first: what follows is written over it.
#include "simd/dot_avx512vnni.h"
// And so is the algorithm.
#include "kernels/quantize/generic.h"

SRT_DEFINE_KERNEL(quantize_i8_avx512vnni, Quantize)
SRT_DEFINE_KERNEL(dequantize_i8_avx512vnni, Dequantize)
SRT_DEFINE_KERNEL(qadd_i8_avx512vnni, QAdd)
SRT_DEFINE_KERNEL(qlookup_i8_avx512vnni, QLookup)
SRT_DEFINE_KERNEL(qelementwise_i8_avx512vnni, QElementwise)
SRT_DEFINE_KERNEL(qrange_f32_avx512vnni, QRange)
SRT_DEFINE_KERNEL(qdynamic_i8_avx512vnni, QDynamic)
