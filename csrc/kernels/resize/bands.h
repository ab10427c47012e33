// How planes are cut into work items, and the room behind rows.
#pragma once

#include "kernels/resize/resize.h"

namespace sparsert {

constexpr int64_t kBandRows = 32;  // rows of y in an item
constexpr int64_t kRowRoom = 16;   // elements after a row in scratch and after a table

SRT_INLINE int64_t BandsOf(const ResizeArgs& args) {
  return (args.out[0] + kBandRows - 1) / kBandRows;
}

}  // namespace sparsert
