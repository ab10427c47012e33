// qtaps over AVX-512.
#define SRT_ISA avx512vnni
#include "kernels/qtaps/generic.h"

SRT_DEFINE_KERNEL(qtaps_i8_avx512vnni, Qtaps)
