// winograd: 3x3 convolution with dense weights, stride 1, by Winograd's F(2x2, 3x3).
//
// The output is cut into patches of 2x2, each of which reads 4x4 inputs d of every channel. With
//
//   V = B^T d B            B^T = | 1  0 -1  0 |        A^T = | 1  1  1  0 |
//   U = G g G^T                  | 0  1  1  0 |              | 0  1 -1 -1 |
//                                | 0 -1  1  0 |
//                                | 0  1  0 -1 |
//   Y[row] = act(A^T [sum over channels k of U[row][k] * V[k]] A + bias[row] + R[row])
//
// the product is element by element: 16 multiplications where direct summation takes 36. U is made
// when weights are packed. For each of the 16 elements, the sum is a matrix product of U and V,
// whose columns are patches: of all images, row by row, side by side. (Lavin and Gray, "Fast
// Algorithms for Convolutional Neural Networks", 2015.)
//
// A work item is a block of patches and a range of row groups. V of a block is made once by each
// thread that takes an item of it and stays in scratch; the sums of a group of rows are kept there,
// too, until they have been transformed. K is cut into slabs of `block_depth` channels, so that a
// slab of V stays in L1 while the panels of a group pass by. Accumulation order: channels in rising
// order, then the transform, bias, R, act. An infinite or very large input spoils all outputs of
// the patches that read it, not only those whose window holds it.
//
// io: X, [R or nullptr], Y. Y must not overlap X; it may be R itself (same strides), not overlap it
// otherwise.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/arch.h"
#include "base/functions.h"
#include "kernels/kernel.h"

namespace sparsert {

constexpr int kWinogradPoints = 16;  // elements of V and U

// U in the order in which the kernel reads it:
// [groups][points][slabs][panels of the group][channels of the slab][panel_rows]. Rows behind the
// last one are zero.
struct WinogradWeights {
  int32_t rows = 0;          // output channels
  int32_t depth = 0;         // input channels
  int32_t panel_rows = 0;    // rows that are computed together
  int32_t group_panels = 0;  // panels of a group
  int32_t block_depth = 0;   // channels of a slab
  const float* values = nullptr;

  int32_t panels() const { return (rows + panel_rows - 1) / panel_rows; }
  int32_t groups() const { return (panels() + group_panels - 1) / group_panels; }
  int64_t floats() const {
    return static_cast<int64_t>(panels()) * panel_rows * depth * kWinogradPoints;
  }
};

struct WinogradArgs {
  int32_t batch = 1;
  int32_t vecs = 0;              // vectors of the patches of all images
  int32_t blocks = 1;            // block b covers the vectors [b * vecs / blocks, ...)
  int32_t block_vecs = 0;        // of the widest
  int32_t splits = 1;            // that the row groups are shared among
  int64_t pad_h = 0, pad_w = 0;  // at the beginning
  int64_t in_h = 0, in_w = 0;
  int64_t out_h = 0, out_w = 0;
  // Strides in floats.
  int64_t x_image = 0, x_plane = 0;
  int64_t r_image = 0, r_plane = 0;
  int64_t y_image = 0, y_plane = 0;
  WinogradWeights weights;
  const float* bias = nullptr;  // [rows] or nullptr
  Activation act;
};

SRT_INLINE int64_t WinogradItems(const WinogradArgs& a) {
  return static_cast<int64_t>(a.blocks) * a.splits;
}

// Patches side by side of one row of one image that share a vector, and where they are read and
// written. Offsets are floats.
struct WinogradRun {
  int64_t x;      // of the first input, from image 0 of a channel; may lie in the padding
  int64_t v;      // of its lanes in channel 0 of the V of point 0
  int64_t m;      // of its lanes in row 0 of the sums of point 0
  int64_t y, r;   // of the first output, from image 0 of a channel
  int32_t width;  // lanes of a row of its tile: of V and of sums
  int32_t patches;
  int32_t columns;  // of the output
  bool second_row;  // of outputs exists
  bool whole;       // every input that is read lies in the plane
  bool fits;        // a vector stored at its lanes ends in its tile's row
  uint8_t rows;     // bit i: row i of the inputs lies in the plane
  // Bit l: lane l lies in the plane, of what is read at the first input, a vector behind it, and
  // two floats behind these.
  uint16_t inside[4];
};

// The parts of a thread's scratch, in floats.
struct WinogradScratch {
  int64_t v_point;  // from one point to the next in V
  int64_t m_point;  // in the sums
  int64_t m;        // begin of the sums
  int64_t runs;     // begin of the runs
  size_t bytes;     // of the whole
};
SRT_INLINE WinogradScratch LayOutWinogradScratch(const WinogradArgs& a, int lanes) {
  // Points lie a cache line further apart than their data: at a power of two, the 16 of them would
  // share one set of L1.
  constexpr int64_t kApart = 16;
  const int64_t width = static_cast<int64_t>(a.block_vecs) * lanes;
  WinogradScratch s;
  s.v_point = a.weights.depth * width + kApart;
  s.m_point = static_cast<int64_t>(a.weights.group_panels) * a.weights.panel_rows * width + kApart;
  s.m = (s.v_point * kWinogradPoints + 15) / 16 * 16;
  s.runs = (s.m + s.m_point * kWinogradPoints + 15) / 16 * 16;
  s.bytes = static_cast<size_t>(s.runs) * sizeof(float) +
            static_cast<size_t>(width) * sizeof(WinogradRun);
  return s;
}

struct WinogradKernel {
  Kernel kernel;
  int lanes = 0;
  int max_vecs = 0;  // widest tile
  int panel_rows = 0;
};

// The kernel of an instruction set. False if there is none.
bool SelectWinograd(Isa isa, WinogradKernel* kernel);

}  // namespace sparsert
