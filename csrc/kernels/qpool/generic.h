// The maximum of packed bytes over Vec.
// Included once per instruction set, after its vec_*.h and dot_*.h, with SRT_ISA defined.
#pragma once

#include "kernels/define.h"
#include "kernels/qpool/qpool.h"
#include "kernels/spmm/load_tap.h"

namespace sparsert {
namespace SRT_ISA {

static void QmaxPool(const void* args_block, void* const* io, int64_t begin, int64_t end, void*) {
  const QpoolArgs& a = *static_cast<const QpoolArgs*>(args_block);
  for (int64_t item = begin; item < end; ++item) {
    const int64_t image = item / a.planes;
    const int64_t plane = item % a.planes;
    const float* x = static_cast<const float*>(io[0]) + image * a.x_image + plane * a.x_plane;
    float* y = static_cast<float*>(io[1]) + image * a.y_image + plane * a.y_plane;
    const TapVec* tap = a.taps.entries;
    for (int64_t i = 0; i < a.columns; i += Vec::kLanes) {
      // Taps in the padding read 0, which is larger than no byte.
      Vec largest = Zero();
      for (int32_t t = 0; t < a.taps.taps; ++t, tap += a.taps.tile_vecs) {
        largest = MaxBytes(largest, LoadTap(x, *tap, a.taps));
      }
      const int64_t left = a.columns - i;
      StoreMask(y + i, FirstN(static_cast<int>(left < Vec::kLanes ? left : Vec::kLanes)), largest);
    }
  }
}

}  // namespace SRT_ISA
}  // namespace sparsert
