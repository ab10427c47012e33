// qtaps over NEON.
#define SRT_ISA neon
#include "kernels/qtaps/generic.h"

SRT_DEFINE_KERNEL(qtaps_i8_neon, Qtaps)
