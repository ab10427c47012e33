// subsample over Vec. Included once per instruction set, after its vec_*.h, with SRT_ISA defined.
#pragma once

#include "kernels/subsample/subsample.h"

namespace sparsert {
namespace SRT_ISA {

void Subsample(const void* args, void* const* io, int64_t begin, int64_t end, void* scratch);
void Subsample(const void* args, void* const* io, int64_t begin, int64_t end, void*) {
  const SubsampleArgs& a = *static_cast<const SubsampleArgs*>(args);
  const int64_t blocks = (a.planes + kSubsamplePlanes - 1) / kSubsamplePlanes;
  for (int64_t item = begin; item < end; ++item) {
    const int64_t image = item / blocks;
    const int64_t first = item % blocks * kSubsamplePlanes;
    const int64_t left = a.planes - first;
    const int64_t planes = left < kSubsamplePlanes ? left : kSubsamplePlanes;
    const float* x_image = static_cast<const float*>(io[0]) + image * a.x_image;
    float* y_image = static_cast<float*>(io[1]) + image * a.y_image;
    for (int32_t i = 0; i < a.piece_count; ++i) {
      const SubsamplePiece& piece = a.pieces[i];
      const PickIndex index = LoadPickIndex(piece.index);
      const Mask mask = FirstN(piece.count);
      const float* x = x_image + piece.x + first * piece.x_plane;
      float* y = y_image + piece.y + first * piece.y_plane;
      for (int64_t p = 0; p < planes; ++p, x += piece.x_plane, y += piece.y_plane) {
        StoreFirst(y, piece.count, mask, LoadPicked(x, index, mask));
      }
    }
  }
}

}  // namespace SRT_ISA
}  // namespace sparsert
