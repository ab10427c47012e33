// Builds the TapTable of a window: which input each output column reads for each kernel tap.
#pragma once

#include "base/bump.h"
#include "graph/infer_shapes.h"
#include "kernels/phases/phases.h"
#include "kernels/spmm/taps.h"

namespace sparsert {

// How a row of columns is cut into tiles of vectors.
struct Tiling {
  int32_t lanes = 0;
  int32_t vecs = 0;
  int32_t tiles = 0;
  int32_t tile_vecs = 0;

  int32_t Begin(int32_t tile) const {
    return static_cast<int32_t>(static_cast<int64_t>(tile) * vecs / tiles);
  }
};

// Tiles of at most `max_vecs` vectors and about `preferred_vecs` of them, as even as possible.
Tiling MakeTiling(int64_t columns, int lanes, int max_vecs, double preferred_vecs);

// Cuts the same vectors into `tiles` tiles, at most one per vector.
void SetTiles(int32_t tiles, Tiling* tiling);

// How the input planes of a window lie: as they are, or split into the phases of its strides.
PhaseLayout PlaneLayout(const Window& window, bool phased);

// `transposed`: the window of a transposed convolution (output o reads input
// (o + pad - tap * dilation) / stride where that is whole). Memory comes from `bump`.
Status BuildTaps(const Window& window, bool transposed, const PhaseLayout& layout,
                 const Tiling& tiling, Bump* bump, TapTable* table);

}  // namespace sparsert
