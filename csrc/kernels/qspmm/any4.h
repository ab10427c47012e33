// qspmm's any4: each row's weights that are not zero, any four at a time.
// Included once per instruction set, after its vec_*.h and dot_*.h, with SRT_ISA defined.
//
// Other formats keep groups of four input channels whole, of which unstructured zeros leave few
// empty. Here a block's slab of X is turned to rows of bytes first, one for each channel; four rows
// then make, by eight shuffles, what four dot products multiply. So a product costs the same
// wherever its four weights come from.
#pragma once

#include "kernels/qspmm/tile.h"

namespace sparsert {
namespace SRT_ISA {
namespace {

static_assert(kAny4Vecs == 4, "a row of bytes is a vector");

// Weights are fetched so many fours ahead: each tile reads them anew, from L2 or beyond.
constexpr int kAny4Ahead = 256;

// `groups` K-rows of NV vectors become four rows of a vector each. TransposeTaps() moves what lies
// at 16 * row + column to 4 * column + row: the third time, to where it was.
template <int NV>
SRT_INLINE void TurnRows(const float* x, int64_t x_row, int groups, float* to) {
  for (int g = 0; g < groups; ++g, x += x_row, to += 4 * Vec::kLanes) {
    Vec columns[4];
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) columns[v] = v < NV ? LoadU(x + v * Vec::kLanes) : Zero();
    Vec half[4];
    TransposeTaps(columns[0], columns[1], columns[2], columns[3], half);
    Vec rows[4];
    TransposeTaps(half[0], half[1], half[2], half[3], rows);
#pragma GCC unroll 4
    for (int r = 0; r < 4; ++r) StoreU(to + r * Vec::kLanes, rows[r]);
  }
}

// acc += four weights times their rows of X.
template <int NV>
SRT_INLINE void AddFour(const float* x, const uint16_t* id, const float* w, IntVec (&acc)[NV]) {
  Vec columns[4];
  TransposeTaps(LoadU(x + id[0] * Vec::kLanes), LoadU(x + id[1] * Vec::kLanes),
                LoadU(x + id[2] * Vec::kLanes), LoadU(x + id[3] * Vec::kLanes), columns);
  const ByteWeights wv = LoadWeights(w);
#pragma GCC unroll 4
  for (int v = 0; v < NV; ++v) acc[v] = Dot(ToBytes(columns[v]), wv, acc[v]);
}

template <int NV>
SRT_INLINE void AddFours(int n, const uint16_t*& id, const float*& w, const float* x,
                         IntVec (&a)[NV], IntVec (&b)[NV]) {
  for (int i = 0; i < n; ++i) {
    __builtin_prefetch(id + 4 * kAny4Ahead);
    __builtin_prefetch(w + kAny4Ahead);
    AddFour<NV>(x, id, w, a);
    AddFour<NV>(x, id + 4, w + 1, b);
    id += 8;
    w += 2;
  }
}

struct Any4Micro {
  static constexpr bool kPreparesX = true;

  template <int NV>
  static const float* PrepareX(const float* x, int64_t x_row, int depth, float* rows) {
    TurnRows<NV>(x, x_row, depth, rows);
    return rows;
  }

  template <int NV, bool>
  static void Run(const PackedMatrix& m, const QspmmTile& t) {
    const size_t at = static_cast<size_t>(t.block) * m.panels + t.panel_begin;
    const auto* pair = reinterpret_cast<const Csr2Pair*>(m.counts) + at * 2;
    const uint16_t* id = m.ids + m.id_offsets[at];
    const float* w = m.values + m.value_offsets[at];
    for (int p = t.panel_begin; p < t.panel_end; ++p, pair += 2) {
      const int row = p * 4;
      const int rows = m.rows - row < 4 ? m.rows - row : 4;
      const PanelRows panel = RowsOf(pair, rows);
      IntVec acc[4][NV];
      BeginPanel<NV>(t, row, rows, panel, acc);
      AddFours<NV>(pair[0].single, id, w, t.x, acc[0], acc[1]);
      AddFours<NV>(pair[1].single, id, w, t.x, acc[2], acc[3]);
      EndPanel<NV>(t, row, rows, panel, acc);
    }
  }
};

}  // namespace
}  // namespace SRT_ISA
}  // namespace sparsert
