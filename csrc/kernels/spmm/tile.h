// What the spmm micro-kernels share: one tile's addresses, and how a row begins and ends.
// Included once per instruction set, after its vec_*.h, with SRT_ISA defined.
#pragma once

#include "base/arch.h"
#include "kernels/spmm/spmm.h"
#include "simd/vec_math.h"

namespace sparsert {
namespace SRT_ISA {

// One tile of columns during one block of K. Pointers to row 0 of the group at the tile's first
// column; strides in floats.
struct SpmmTile {
  const float* x;  // K-row 0 of the block
  int64_t x_row;
  float* y;
  int64_t y_row;
  float* sums;     // [rows][NV * lanes] partial sums between blocks, private to this thread
  const float* r;  // nullptr: no residual
  int64_t r_row;
  const float* bias;  // nullptr: zeros
  Mask tail;          // valid lanes of the last vector
  bool partial;       // tail is not full
  bool ahead;         // fetch rows of R and Y before they are needed: they lie far from L1
  bool stream;        // fetch weights ahead: they lie beyond L1, or, read once, beyond L2
  bool by_fours;      // SpmmArgs::weights_by_fours
  bool fetch_x;       // fetch K-rows of X ahead: their tile was not read before
  bool first;         // this block starts the sums
  bool last;          // this block ends them
  int block;
  int panel_begin;
  int panel_end;
  Activation act;
};

// A tile of a vector of each of NV rows of a plane. `partial` and `tail` are of each vector.
struct StackedTile : SpmmTile {
  int64_t y_vec;  // from a vector to the next one, in Y and R
};

SRT_INLINE int64_t ColumnOf(const SpmmTile&, int v) { return v * Vec::kLanes; }
SRT_INLINE int64_t ColumnOf(const StackedTile& t, int v) { return v * t.y_vec; }

template <int NV>
SRT_INLINE Vec LoadColumn(const StackedTile& t, const float* p, int v) {
  return t.partial ? LoadMask(p + v * t.y_vec, t.tail) : LoadU(p + v * t.y_vec);
}

template <int NV>
SRT_INLINE void StoreColumn(const StackedTile& t, float* p, int v, Vec a) {
  if (t.partial) {
    StoreMask(p + v * t.y_vec, t.tail, a);
  } else {
    StoreU(p + v * t.y_vec, a);
  }
}

template <int NV>
SRT_INLINE Vec LoadColumn(const SpmmTile& t, const float* p, int v) {
  if (v == NV - 1 && t.partial) return LoadMask(p + v * Vec::kLanes, t.tail);
  return LoadU(p + v * Vec::kLanes);
}

template <int NV>
SRT_INLINE void StoreColumn(const SpmmTile& t, float* p, int v, Vec a) {
  if (v == NV - 1 && t.partial) {
    StoreMask(p + v * Vec::kLanes, t.tail, a);
  } else {
    StoreU(p + v * Vec::kLanes, a);
  }
}

// Asks for a row of R and of Y. Their planes lie apart by more than a hardware prefetcher follows.
template <int NV, typename Tile>
SRT_INLINE void FetchRow(const Tile& t, int row) {
  const float* y = t.y + row * t.y_row;
#pragma GCC unroll 8
  for (int v = 0; v < NV; ++v) __builtin_prefetch(y + ColumnOf(t, v), 1);
  if (t.r == nullptr || t.r == t.y) return;
  const float* r = t.r + row * t.r_row;
#pragma GCC unroll 8
  for (int v = 0; v < NV; ++v) __builtin_prefetch(r + ColumnOf(t, v));
}

// Asks for the partial sums of a row.
template <int NV>
SRT_INLINE void FetchSums(const SpmmTile& t, int row) {
  const float* sums = t.sums + row * (NV * Vec::kLanes);
#pragma GCC unroll 8
  for (int v = 0; v < NV; ++v) __builtin_prefetch(sums + v * Vec::kLanes, 1);
}

// The sums of `row` before this block: the bias, or what earlier blocks left, kWidth vectors for
// each row.
template <int NV, int kWidth = NV>
SRT_INLINE void BeginRow(const SpmmTile& t, int row, Vec (&acc)[NV]) {
  if (t.first) {
    const Vec b = t.bias != nullptr ? Set1(t.bias[row]) : Zero();
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v) acc[v] = b;
  } else {
    const float* sums = t.sums + row * (kWidth * Vec::kLanes);
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v) acc[v] = Load(sums + v * Vec::kLanes);
  }
}

// Activations of many operations, on a row just stored.
template <int NV, typename Tile>
SRT_SHARED void ActivateRow(const Tile& t, float* y) {
  Vec a[NV];
  for (int v = 0; v < NV; ++v) a[v] = LoadColumn<NV>(t, y, v);
  ApplyActivation(t.act, a, NV);
  for (int v = 0; v < NV; ++v) StoreColumn<NV>(t, y, v, a[v]);
}

template <int NV>
SRT_SHARED void ActivateRow(const SpmmTile& t, float* y) {
  const int whole = t.partial ? NV - 1 : NV;
  SRT_VEC_ISA::ApplyToVectors(t.act, y, whole, Vec::kLanes);
  if (!t.partial) return;
  Vec a = LoadColumn<NV>(t, y, NV - 1);
  ApplyActivation(t.act, &a, 1);
  StoreColumn<NV>(t, y, NV - 1, a);
}

template <int NV, int kWidth = NV, typename Tile>
SRT_INLINE void EndRow(const Tile& t, int row, Vec (&acc)[NV]) {
  if (!t.last) {
    float* sums = t.sums + row * (kWidth * Vec::kLanes);
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v) Store(sums + v * Vec::kLanes, acc[v]);
    return;
  }
  float* y = t.y + row * t.y_row;
  if (t.r != nullptr) {
    const float* r = t.r + row * t.r_row;
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v) acc[v] = Add(acc[v], LoadColumn<NV>(t, r, v));
  }
  const bool activated = ActivateInRegisters(t.act, acc);
#pragma GCC unroll 8
  for (int v = 0; v < NV; ++v) StoreColumn<NV>(t, y, v, acc[v]);
  if (!activated) ActivateRow<NV>(t, y);
}

// EndRow for those of `rows` successive rows that exist, their sums in memory.
template <int NV>
SRT_SHARED void EndStoredRows(const SpmmTile& t, int row, int rows, const Vec* sums) {
  for (int r = 0; r < rows; ++r, sums += NV) {
    Vec acc[NV];
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v) acc[v] = sums[v];
    EndRow<NV>(t, row + r, acc);
  }
}

// The same for the rows of a panel, their sums in registers.
template <int MR, int NV, int kWidth = NV>
SRT_INLINE void EndRows(const SpmmTile& t, int row, int rows, Vec (&acc)[MR][NV]) {
  if (Vec::kShortCode) {
    Vec sums[MR][NV];
#pragma GCC unroll 8
    for (int r = 0; r < MR; ++r) {
#pragma GCC unroll 8
      for (int v = 0; v < NV; ++v) sums[r][v] = acc[r][v];
    }
    EndStoredRows<NV>(t, row, rows, sums[0]);
    return;
  }
#pragma GCC unroll 8
  for (int r = 0; r < MR; ++r) {
    if (r < rows) EndRow<NV, kWidth>(t, row + r, acc[r]);
  }
}

// Joined ends: a tile's last vector has a single column, and the sums of this column of four
// successive rows are one vector's lanes. Between blocks they lie where the first row's last vector
// would.
template <int NV>
SRT_INLINE Vec BeginJoined(const SpmmTile& t, int row, int rows) {
  if (!t.first) return Load(t.sums + (row * NV + NV - 1) * Vec::kLanes);
  return t.bias != nullptr ? LoadMask(t.bias + row, FirstN(rows)) : Zero();
}

template <int NV>
SRT_INLINE void EndJoined(const SpmmTile& t, int row, int rows, Vec acc) {
  if (!t.last) {
    Store(t.sums + (row * NV + NV - 1) * Vec::kLanes, acc);
    return;
  }
  constexpr int kColumn = (NV - 1) * Vec::kLanes;
  alignas(64) float sums[Vec::kLanes];
  Store(sums, acc);
  if (t.r != nullptr) {
    for (int r = 0; r < rows; ++r) sums[r] += t.r[(row + r) * t.r_row + kColumn];
  }
  if (t.act.fn == UnaryFn::kRelu) {
    for (int r = 0; r < rows; ++r) sums[r] = sums[r] < 0.0f ? 0.0f : sums[r];
  } else if (t.act.fn != UnaryFn::kNone) {
    Vec a[1] = {Load(sums)};
    ActivateRegisters(t.act, a);
    Store(sums, a[0]);
  }
  for (int r = 0; r < rows; ++r) t.y[(row + r) * t.y_row + kColumn] = sums[r];
}

}  // namespace SRT_ISA
}  // namespace sparsert
