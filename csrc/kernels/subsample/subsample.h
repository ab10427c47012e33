// subsample: the columns of planes that a window of one element and a stride reads, side by side.
//
//   y[p][j] = x[p][column of j]
//
// Both may lie in tiles of columns instead of planes (see SpmmArgs). Columns are copied piece by
// piece, the same ones of several planes in a row.
//
// io: x, y, which do not overlap. A work item is some planes of one image.
#pragma once

#include <cstdint>

#include "base/arch.h"
#include "kernels/kernel.h"

namespace sparsert {

// Floats that a piece is picked from, all of which are read.
constexpr int kPieceFloats = 32;

// Columns of one tile of x and one of y. Floats: where those of the first plane begin, and the
// distance between planes.
struct SubsamplePiece {
  int64_t x, x_plane;
  int64_t y, y_plane;
  int32_t count;  // at most a vector
  int32_t index[16];
};

struct SubsampleArgs {
  int64_t images = 1;
  int64_t planes = 0;                // of one image
  int64_t x_image = 0, y_image = 0;  // strides in floats
  int32_t piece_count = 0;
  const SubsamplePiece* pieces = nullptr;
};

constexpr int64_t kSubsamplePlanes = 16;  // of an item

inline int64_t SubsampleItems(const SubsampleArgs& a) {
  return a.images * ((a.planes + kSubsamplePlanes - 1) / kSubsamplePlanes);
}

// `lanes`: columns of a piece at most.
bool SelectSubsample(Isa isa, Kernel* kernel, int* lanes);

}  // namespace sparsert
