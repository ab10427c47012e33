// wstem: what stem computes (kernels/stem/stem.h), for windows of 7 x 7 and stride 2, by Winograd.
//
// Apart by their parity, the rows and columns of a 9 x 9 patch of inputs are four planes, and a
// 2 x 2 patch of outputs is the sum of four convolutions of stride 1, with kernels of 4 and 3 rows
// and columns. In one dimension, for outputs y0 and y1, with the points 0, 1, -1, 2 and infinity
// (the odd inputs get by without 2),
//
//   even inputs           | 2 -1 -2  1  0 |   odd inputs           | -1  0  1  0 |
//   d0 d2 d4 d6 d8        | 0 -2 -1  1  0 |   d1 d3 d5 d7          |  0  1  1  0 |
//                   B^T = | 0  2 -3  1  0 |                  B^T = |  0 -1  1  0 |
//                         | 0 -1  0  1  0 |                        |             |
//                         | 0  2 -1 -2  1 |                        |  0 -1  0  1 |
//
//   even weights          |  1/2   0    0    0  |   odd weights        | -1    0   0  |
//   g0 g2 g4 g6           | -1/2 -1/2 -1/2 -1/2 |   g1 g3 g5           | 1/2  1/2 1/2 |
//                     G = | -1/6  1/6 -1/6  1/6 |                  G = | 1/2 -1/2 1/2 |
//                         |  1/6  1/3  2/3  4/3 |                      |              |
//                         |   0    0    0    1  |                      |  0    0   1  |
//
//   A^T = | 1  1  1  1  0 |     y = A^T [sum of the products, element by element, of G g and B^T d]
//         | 0  1 -1  2  1 |
//
// and both dimensions one after the other: 81 multiplications for each input channel where direct
// summation takes 196. All four sums meet before the transform by A, which is made once. (Lavin and
// Gray, "Fast Algorithms for Convolutional Neural Networks", 2015.)
//
// A row of patches is computed at a time, in strips of up to four vectors of patches; its products
// column by column of points, so that L1 keeps the inputs that all output channels read, and what a
// column adds to is kept in L2. Where an input of the row of patches is infinite or NaN, or a
// weight is, it is computed by direct summation.
//
// io, work items and `pool` are those of stem.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/arch.h"
#include "kernels/stem/stem.h"

namespace sparsert {

// Whether any kernel of this build computes it.
#if defined(SRT_X86)
constexpr bool kHasWstem = true;
#else
constexpr bool kHasWstem = false;
#endif

constexpr int kWstemLanes = 16;
constexpr int kWstemRows = 4;       // output channels of a panel
constexpr int kWstemVecs = 4;       // of a strip
constexpr int kWstemKernel = 7;     // rows and columns of a window
constexpr int kWstemInputs = 9;     // rows and columns of a patch of inputs
constexpr int kWstemPoints = 5;     // of either dimension
constexpr int kWstemNoOdd = 3;      // the point that odd inputs do without
constexpr int kWstemProducts = 81;  // for each input channel of a patch and output channel

// K-rows of a point in (column, row) order: of each channel, one for every parity that has it.
SRT_INLINE int WstemParities(int point) { return point == kWstemNoOdd ? 1 : 2; }
SRT_INLINE int WstemDepth(int column, int row, int in_channels) {
  return WstemParities(column) * WstemParities(row) * in_channels;
}

SRT_INLINE int64_t WstemPanels(const StemArgs& a) {
  return (a.channels + kWstemRows - 1) / kWstemRows;
}
SRT_INLINE int64_t WstemPatchVecs(const StemArgs& a) {
  const int64_t columns = a.pool ? 2 * a.pooled_w : a.out_w;
  return ((columns + 1) / 2 + kWstemLanes - 1) / kWstemLanes;
}

// [columns of points][panels][rows of points][K-rows][kWstemRows]; K-rows in the order [parity of
// the row][parity of the column][channel].
SRT_INLINE int64_t WstemPackedFloats(const StemArgs& a) {
  return WstemPanels(a) * kWstemRows * kWstemProducts * a.in_channels;
}
// False if a weight is not finite: `packed` is to be nullptr then.
bool PackWstem(const StemArgs& a, float* to);

// The parts of a thread's scratch, in floats.
struct WstemFloats {
  int64_t phases;  // of a row of a channel of X: its columns by their remainder of 4
  int64_t plain;   // those of all rows of a row of patches
  int64_t ring;    // rows of X, transformed by columns: [9][channels][9][columns]
  int64_t v;       // transformed inputs of a strip
  int64_t m;       // a panel's products at four points
  int64_t half;    // of all channels, between the two transforms of a strip's products
  int64_t row;     // pool: the last output row, [channels][vectors][even, odd]
  int64_t edge;    // pool: the odd columns of a strip's last vector, of each channel
};
WstemFloats WstemFloatsOf(const StemArgs& a);
size_t WstemScratch(const StemArgs& a);

// False if the instruction set has none.
bool SelectWstem(Isa isa, Kernel* kernel);

}  // namespace sparsert
