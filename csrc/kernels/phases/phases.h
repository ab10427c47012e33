// phases: splits planes by the row and column modulo the strides of a window.
//
//   y[p][row % stride_h][column % stride_w][row / stride_h][column / stride_w] = x[p][row][column]
//
// A tap of a strided window reads one phase only, and neighbouring output columns read neighbouring
// elements of it: what each tap's copy would pick apart anew is picked apart once.
//
// io: x, y, which do not overlap. A work item is one plane of one image.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/arch.h"
#include "kernels/kernel.h"

namespace sparsert {

constexpr int64_t kMaxPhaseStride = 16;

// Where the elements of a plane lie in its phases.
struct PhaseLayout {
  int64_t stride_h = 1, stride_w = 1;
  int64_t row = 0;    // floats between rows of a phase
  int64_t phase = 0;  // floats between phases, with room for a vector behind the last row

  int64_t Offset(int64_t ih, int64_t iw) const {
    if (stride_h == 1 && stride_w == 1) return ih * row + iw;  // no division
    return (ih % stride_h * stride_w + iw % stride_w) * phase + ih / stride_h * row + iw / stride_w;
  }
  int64_t floats() const { return stride_h * stride_w * phase; }
};

// Strides must be at most kMaxPhaseStride.
inline PhaseLayout LayOutPhases(int64_t in_h, int64_t in_w, int64_t stride_h, int64_t stride_w) {
  constexpr int64_t kWidestVec = 16;
  PhaseLayout layout;
  layout.stride_h = stride_h;
  layout.stride_w = stride_w;
  layout.row = (in_w + stride_w - 1) / stride_w;
  const int64_t rows = (in_h + stride_h - 1) / stride_h;
  layout.phase = (rows * layout.row + 2 * kWidestVec - 1) / kWidestVec * kWidestVec;
  return layout;
}

struct PhasesArgs {
  int64_t planes = 0;    // of all images
  int64_t channels = 1;  // planes of one image
  int64_t in_h = 1, in_w = 1;
  PhaseLayout layout;
  // Bit i: some tap reads rows or columns of phase i; the other phases need not be written.
  uint32_t used_h = 0, used_w = 0;
  // Strides in floats.
  int64_t x_image = 0, x_plane = 0;
  int64_t y_plane = 0;
};

inline int64_t PhasesItems(const PhasesArgs& a) { return a.planes; }

bool SelectPhases(Isa isa, Kernel* kernel);

}  // namespace sparsert
