// MatMul: y = alpha * a b for matrices that broadcast over the dimensions around them.
#pragma once

#include "kernels/kernel.h"
#include "kernels/loop.h"

namespace sparsert {

// io: a, b, y; y overlaps neither. Strides in elements.
struct MatMulArgs {
  int64_t m, n, k;
  int64_t a_row, a_col;  // a: [m, k]
  int64_t b_row, b_col;  // b: [k, n]
  int64_t y_row;         // y: [m, n], columns are contiguous
  float alpha;
  int batch_rank;
  int64_t batch_dims[kMaxRank];
  int64_t batch_strides[3][kMaxRank];  // of a, b, y
  int64_t batches;
  int64_t row_block;  // rows of an item
  int64_t row_blocks;
  int64_t panels;  // of kMatMulPanel columns
};

constexpr int64_t kMatMulPanel = 64;
// Rows of b that are multiplied before the sums go to y.
constexpr int64_t kMatMulDepth = 512;

// Fills everything but m, n, k, strides and alpha, which the caller has set; `batch_strides` for
// dimensions of size above 1. `threads` may share the work.
void ShareMatMul(int threads, MatMulArgs* args);

// Work items: blocks of rows of one panel of one product.
int64_t MatMulItems(const MatMulArgs& args);

size_t MatMulScratch(const MatMulArgs& args);

bool SelectMatMul(const MatMulArgs& args, Isa isa, Kernel* kernel);

}  // namespace sparsert
