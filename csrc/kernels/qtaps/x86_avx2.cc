// qtaps over AVX2.
#define SRT_ISA avx2
#include "kernels/qtaps/generic.h"

SRT_DEFINE_KERNEL(qtaps_i8_avx2, Qtaps)
