// qtaps over plain C++.
#define SRT_ISA scalar
#include "kernels/qtaps/generic.h"

SRT_DEFINE_KERNEL(qtaps_i8_scalar, Qtaps)
