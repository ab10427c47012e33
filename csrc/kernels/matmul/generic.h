// MatMul over Vec: panels of b, packed where they are not rows of whole vectors.
#pragma once

#include "kernels/define.h"
#include "kernels/matmul/matmul.h"
#include "kernels/matmul/tile.h"

namespace sparsert {
namespace SRT_ISA {

static void MatMul(const void* args_block, void* const* io, int64_t begin, int64_t end,
                   void* scratch) {
  const DenormalsAreZero guard;
  const MatMulArgs& args = *static_cast<const MatMulArgs*>(args_block);
  float* panel = static_cast<float*>(scratch);
  for (int64_t item = begin; item < end; ++item) {
    const int64_t first_row = item % args.row_blocks * args.row_block;
    int64_t rest = item / args.row_blocks;
    const int64_t first_column = rest % args.panels * kMatMulPanel;
    rest /= args.panels;
    const float* a = static_cast<const float*>(io[0]) + first_row * args.a_row;
    const float* b = static_cast<const float*>(io[1]) + first_column * args.b_col;
    float* y = static_cast<float*>(io[2]) + first_row * args.y_row + first_column;
    for (int d = args.batch_rank - 1; d >= 0; --d) {
      const int64_t index = rest % args.batch_dims[d];
      rest /= args.batch_dims[d];
      a += index * args.batch_strides[0][d];
      b += index * args.batch_strides[1][d];
      y += index * args.batch_strides[2][d];
    }
    int64_t rows = args.m - first_row;
    if (rows > args.row_block) rows = args.row_block;
    int64_t columns = args.n - first_column;
    if (columns > kMatMulPanel) columns = kMatMulPanel;
    TileOperands t;
    t.a_row = args.a_row;
    t.a_col = args.a_col;
    t.y = y;
    t.y_row = args.y_row;
    t.alpha = args.alpha;
    const bool packed = args.b_col != 1 || columns % Vec::kLanes != 0 || rows > 2 * kTileRows;
    for (int64_t done = 0; done < args.k || done == 0; done += kMatMulDepth) {
      t.k = args.k - done < kMatMulDepth ? args.k - done : kMatMulDepth;
      t.a = a + done * args.a_col;
      t.b = b + done * args.b_row;
      t.b_row = args.b_row;
      t.add = done != 0;
      if (packed) {
        PackPanel(t.b, args.b_row, args.b_col, t.k, columns, panel, kMatMulPanel);
        t.b = panel;
        t.b_row = kMatMulPanel;
      }
      Multiply(t, rows, columns);
    }
  }
}

}  // namespace SRT_ISA
}  // namespace sparsert
