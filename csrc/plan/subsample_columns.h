// Cuts the columns that a strided window of one element reads into the pieces that subsample
// copies.
#pragma once

#include "graph/resolve.h"
#include "kernels/subsample/subsample.h"
#include "plan/build_taps.h"

namespace sparsert {

// How the columns of an image's planes lie: in tiles (see SpmmArgs), or plane after plane.
struct PlaneColumns {
  // `plane`: floats between planes. `tiles`: nullptr if they lie in none.
  PlaneColumns(int64_t columns, int64_t plane, int64_t channels, const Tiling* tiles)
      : plane(plane), channels(channels) {
    if (tiles != nullptr) {
      tiling = *tiles;
    } else {
      tiling.lanes = 1;
      tiling.vecs = static_cast<int32_t>(columns);
      tiling.tiles = 1;
    }
  }

  int64_t Begin(int32_t tile) const {
    return static_cast<int64_t>(tiling.Begin(tile)) * tiling.lanes;
  }
  // Floats from the image to the tile, and in it between planes.
  int64_t Offset(int32_t tile) const { return tiling.tiles == 1 ? 0 : Begin(tile) * channels; }
  int64_t Plane(int32_t tile) const {
    return tiling.tiles == 1 ? plane : Begin(tile + 1) - Begin(tile);
  }

  Tiling tiling;
  int64_t plane;
  int64_t channels;
};

// Pieces of at most `lanes` columns. The vectors of `in` are whole: what a piece reads behind its
// plane's last one is of the next plane, or up to 16 floats behind the image.
Status CutPieces(const Window& window, const PlaneColumns& in, const PlaneColumns& out, int lanes,
                 Array<SubsamplePiece>* pieces);

}  // namespace sparsert
