// Register-tiled product of two small matrices over Vec.
#pragma once

#include "base/arch.h"

namespace sparsert {
namespace SRT_ISA {

// Rows and vectors of columns whose sums are held in registers.
constexpr int kTileRows = 6;
constexpr int kTileVecs = Vec::kRegisters >= 32 ? 4 : 2;

// What a tile reads and writes; strides in elements.
struct TileOperands {
  const float* a;  // [rows, k]
  int64_t a_row, a_col;
  const float* b;  // [k, columns], whole vectors are read
  int64_t b_row;
  float* y;  // [rows, columns], columns contiguous
  int64_t y_row;
  int64_t k;
  float alpha;
  bool add;  // to what y holds
};

// y = alpha * a b of Rows rows and Vecs vectors; of the last vector only `last` is written.
template <int Rows, int Vecs>
static void MultiplyTile(const TileOperands& t, Mask last) {
  Vec sums[Rows][Vecs];
  for (int r = 0; r < Rows; ++r) {
    for (int v = 0; v < Vecs; ++v) sums[r][v] = Zero();
  }
  const float* a = t.a;
  const float* b = t.b;
  const int64_t a_row = t.a_row;
  for (int64_t k = 0; k < t.k; ++k, a += t.a_col, b += t.b_row) {
    Vec columns[Vecs];
    for (int v = 0; v < Vecs; ++v) columns[v] = LoadU(b + v * Vec::kLanes);
    for (int r = 0; r < Rows; ++r) {
      const Vec factor = Set1(a[r * a_row]);
      for (int v = 0; v < Vecs; ++v) sums[r][v] = Fma(factor, columns[v], sums[r][v]);
    }
  }
  const Vec alpha = Set1(t.alpha);
  for (int r = 0; r < Rows; ++r) {
    float* y = t.y + r * t.y_row;
    for (int v = 0; v < Vecs; ++v, y += Vec::kLanes) {
      Vec sum = Mul(sums[r][v], alpha);
      if (v + 1 < Vecs) {
        StoreU(y, t.add ? Add(sum, LoadU(y)) : sum);
      } else {
        StoreMask(y, last, t.add ? Add(sum, LoadMask(y, last)) : sum);
      }
    }
  }
}

template <int Vecs>
static void MultiplyRows(TileOperands t, int64_t rows, Mask last) {
  for (; rows >= kTileRows; rows -= kTileRows) {
    MultiplyTile<kTileRows, Vecs>(t, last);
    t.a += kTileRows * t.a_row;
    t.y += kTileRows * t.y_row;
  }
  switch (rows) {
    case 1:
      return MultiplyTile<1, Vecs>(t, last);
    case 2:
      return MultiplyTile<2, Vecs>(t, last);
    case 3:
      return MultiplyTile<3, Vecs>(t, last);
    case 4:
      return MultiplyTile<4, Vecs>(t, last);
    case 5:
      return MultiplyTile<5, Vecs>(t, last);
    default:
      return;
  }
}

// y = alpha * a b, with `rows` rows and `columns` columns.
static void Multiply(TileOperands t, int64_t rows, int64_t columns) {
  constexpr int64_t kWidth = static_cast<int64_t>(kTileVecs) * Vec::kLanes;
  const Mask whole = FirstN(Vec::kLanes);
  for (; columns >= kWidth; columns -= kWidth) {
    MultiplyRows<kTileVecs>(t, rows, whole);
    t.b += kWidth;
    t.y += kWidth;
  }
  if (columns == 0) return;
  const int vecs = static_cast<int>((columns + Vec::kLanes - 1) / Vec::kLanes);
  const Mask last = FirstN(static_cast<int>(columns - (vecs - 1) * Vec::kLanes));
  if (vecs == 1) return MultiplyRows<1>(t, rows, last);
  if constexpr (kTileVecs > 2) {
    if (vecs == 3) return MultiplyRows<3>(t, rows, last);
    if (vecs == 4) return MultiplyRows<4>(t, rows, last);
  }
  MultiplyRows<2>(t, rows, last);
}

// to[r * to_row + c] = from[r * from_row + c * from_col] of rows x columns, then zeros up to whole
// vectors.
static void PackPanel(const float* from, int64_t from_row, int64_t from_col, int64_t rows,
                      int64_t columns, float* to, int64_t to_row) {
  const int64_t padded = (columns + Vec::kLanes - 1) / Vec::kLanes * Vec::kLanes;
  if (from_col == 1) {
    for (int64_t r = 0; r < rows; ++r, from += from_row, to += to_row) {
      int64_t c = 0;
      for (; c + Vec::kLanes <= columns; c += Vec::kLanes) StoreU(to + c, LoadU(from + c));
      if (c < columns) StoreU(to + c, LoadMask(from + c, FirstN(static_cast<int>(columns - c))));
    }
    return;
  }
  // Blocks of both, so that the lines of either stay in cache.
  constexpr int64_t kBlock = 16;
  for (int64_t first = 0; first < rows; first += kBlock) {
    const int64_t end = first + kBlock < rows ? first + kBlock : rows;
    for (int64_t c = 0; c < padded; ++c) {
      for (int64_t r = first; r < end; ++r) {
        to[r * to_row + c] = c < columns ? from[r * from_row + c * from_col] : 0.0f;
      }
    }
  }
}

}  // namespace SRT_ISA
}  // namespace sparsert
