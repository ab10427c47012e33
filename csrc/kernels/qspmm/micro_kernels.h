// The qspmm micro-kernels: one tile times one block of packed weights, a format each.
// Included once per instruction set, after its vec_*.h and dot_*.h, with SRT_ISA defined.
#pragma once

#include "kernels/qspmm/tile.h"

namespace sparsert {
namespace SRT_ISA {
namespace {

// Streamed weights are fetched this far ahead: the next page, where hardware prefetchers stop.
constexpr int kWeightsAhead = 1024;

// Asks for as many ids and weights as were just used.
SRT_INLINE void FetchWeights(const uint16_t* id, const uint16_t* id_end, const float* w,
                             const float* w_end) {
  for (; w < w_end; w += 16) __builtin_prefetch(w + kWeightsAhead);
  for (; id < id_end; id += 32) __builtin_prefetch(id + kWeightsAhead);
}

// Adds the products of `n` columns whose pattern P says which of the panel's 4 rows are non-zero.
template <int P, int NV, bool kHalf>
SRT_INLINE void AddPattern(int n, const uint16_t*& id, const float*& w, const QspmmTile& t,
                           IntVec (&acc)[4][NV]) {
  // Beside the sums of a wide tile, registers hold a column's weights and one vector of X.
  constexpr bool kHoldsX = 5 * NV < Vec::kRegisters;
  for (int i = 0; i < n; ++i) {
    const float* x = t.x + *id++ * t.x_row;
    if (kHoldsX) {
      ByteVec xv[NV];
#pragma GCC unroll 8
      for (int v = 0; v < NV; ++v) xv[v] = LoadX<NV, kHalf>(x, v);
#pragma GCC unroll 4
      for (int r = 0; r < 4; ++r) {
        if ((P >> r & 1) == 0) continue;
        const ByteWeights wv = LoadWeights(w++);
#pragma GCC unroll 8
        for (int v = 0; v < NV; ++v) acc[r][v] = DotX<NV, kHalf>(xv[v], wv, acc[r][v], v);
      }
      continue;
    }
    ByteWeights wv[4];
#pragma GCC unroll 4
    for (int r = 0; r < 4; ++r) {
      if ((P >> r & 1) != 0) wv[r] = LoadWeights(w++);
    }
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v) {
      const ByteVec xv = LoadX<NV, kHalf>(x, v);
#pragma GCC unroll 4
      for (int r = 0; r < 4; ++r) {
        if ((P >> r & 1) != 0) acc[r][v] = DotX<NV, kHalf>(xv, wv[r], acc[r][v], v);
      }
    }
  }
}

struct Pat4Micro {
  static constexpr bool kPreparesX = false;
  template <int NV, bool kHalf>
  static void Run(const PackedMatrix& m, const QspmmTile& t) {
    const size_t at = static_cast<size_t>(t.block) * m.panels + t.panel_begin;
    const uint16_t* count = m.counts + at * kPatterns;
    const uint16_t* id = m.ids + m.id_offsets[at];
    const float* w = m.values + m.value_offsets[at];
    for (int p = t.panel_begin; p < t.panel_end; ++p) {
      const int row = p * 4;
      const int rows = m.rows - row < 4 ? m.rows - row : 4;
      const uint16_t* first_id = id;
      const float* first_w = w;
      IntVec acc[4][NV];
      BeginPanel<NV>(t, row, rows, kInOrder, acc);
      AddPattern<1, NV, kHalf>(count[0], id, w, t, acc);
      AddPattern<2, NV, kHalf>(count[1], id, w, t, acc);
      AddPattern<3, NV, kHalf>(count[2], id, w, t, acc);
      AddPattern<4, NV, kHalf>(count[3], id, w, t, acc);
      AddPattern<5, NV, kHalf>(count[4], id, w, t, acc);
      AddPattern<6, NV, kHalf>(count[5], id, w, t, acc);
      AddPattern<7, NV, kHalf>(count[6], id, w, t, acc);
      AddPattern<8, NV, kHalf>(count[7], id, w, t, acc);
      AddPattern<9, NV, kHalf>(count[8], id, w, t, acc);
      AddPattern<10, NV, kHalf>(count[9], id, w, t, acc);
      AddPattern<11, NV, kHalf>(count[10], id, w, t, acc);
      AddPattern<12, NV, kHalf>(count[11], id, w, t, acc);
      AddPattern<13, NV, kHalf>(count[12], id, w, t, acc);
      AddPattern<14, NV, kHalf>(count[13], id, w, t, acc);
      AddPattern<15, NV, kHalf>(count[14], id, w, t, acc);
      count += kPatterns;
      if (t.stream) FetchWeights(first_id, id, first_w, w);
      EndPanel<NV>(t, row, rows, kInOrder, acc);
    }
  }
};

// acc += w * one K-row of the tile.
template <int NV, bool kHalf>
SRT_INLINE void AddRow(const float* x, ByteWeights w, IntVec (&acc)[NV]) {
#pragma GCC unroll 8
  for (int v = 0; v < NV; ++v) acc[v] = DotX<NV, kHalf>(LoadX<NV, kHalf>(x, v), w, acc[v], v);
}

template <int NV, bool kHalf>
SRT_INLINE void AddPair(const Csr2Pair& pair, const uint16_t*& id, const float*& w,
                        const QspmmTile& t, IntVec (&a)[NV], IntVec (&b)[NV]) {
  for (int i = 0; i < pair.both; ++i) {
    const float* x = t.x + *id++ * t.x_row;
    const ByteWeights wa = LoadWeights(w);
    const ByteWeights wb = LoadWeights(w + 1);
    w += 2;
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v) {
      const ByteVec xv = LoadX<NV, kHalf>(x, v);
      a[v] = DotX<NV, kHalf>(xv, wa, a[v], v);
      b[v] = DotX<NV, kHalf>(xv, wb, b[v], v);
    }
  }
  for (int i = 0; i < pair.single; ++i) {
    AddRow<NV, kHalf>(t.x + id[0] * t.x_row, LoadWeights(w), a);
    AddRow<NV, kHalf>(t.x + id[1] * t.x_row, LoadWeights(w + 1), b);
    id += 2;
    w += 2;
  }
}

// Panels of four rows, as two pairs (see Csr2Pair): their sums stay in registers until the four
// rows become bytes.
struct Csr2Micro {
  static constexpr bool kPreparesX = false;
  template <int NV, bool kHalf>
  static void Run(const PackedMatrix& m, const QspmmTile& t) {
    const size_t at = static_cast<size_t>(t.block) * m.panels + t.panel_begin;
    const auto* pair = reinterpret_cast<const Csr2Pair*>(m.counts) + at * 2;
    const uint16_t* id = m.ids + m.id_offsets[at];
    const float* w = m.values + m.value_offsets[at];
    for (int p = t.panel_begin; p < t.panel_end; ++p, pair += 2) {
      const int row = p * 4;
      const int rows = m.rows - row < 4 ? m.rows - row : 4;
      const PanelRows panel = RowsOf(pair, rows);
      const uint16_t* first_id = id;
      const float* first_w = w;
      IntVec acc[4][NV];
      BeginPanel<NV>(t, row, rows, panel, acc);
      AddPair<NV, kHalf>(pair[0], id, w, t, acc[0], acc[1]);
      AddPair<NV, kHalf>(pair[1], id, w, t, acc[2], acc[3]);
      if (t.stream) FetchWeights(first_id, id, first_w, w);
      EndPanel<NV>(t, row, rows, panel, acc);
    }
  }
};

// Panels of MR (4 or 8) rows whose stored columns are whole: blocks of MR x 4, or every column.
template <int MR, bool kIndexed>
struct PanelMicro {
  static constexpr bool kPreparesX = false;
  template <int NV, bool kHalf>
  static void Run(const PackedMatrix& m, const QspmmTile& t) {
    const size_t at = static_cast<size_t>(t.block) * m.panels + t.panel_begin;
    const int depth = m.depth - t.block * m.block_depth;
    const int block_depth = depth < m.block_depth ? depth : m.block_depth;
    const uint16_t* count = kIndexed ? m.counts + at : nullptr;
    const uint16_t* id = kIndexed ? m.ids + m.id_offsets[at] : nullptr;
    const float* w = m.values + m.value_offsets[at];
    for (int p = t.panel_begin; p < t.panel_end; ++p) {
      const int row = p * MR;
      const int rows = m.rows - row;
      IntVec acc[MR / 4][4][NV];
#pragma GCC unroll 2
      for (int h = 0; h < MR / 4; ++h) {
        BeginPanel<NV>(t, row + 4 * h, rows - 4 * h, kInOrder, acc[h]);
      }
      const int n = kIndexed ? *count++ : block_depth;
      const float* x = t.x;
      for (int i = 0; i < n; ++i) {
        if (kIndexed) x = t.x + *id++ * t.x_row;
        if (t.stream && i % (16 / MR) == 0) __builtin_prefetch(w + kWeightsAhead);
        ByteVec xv[NV];
#pragma GCC unroll 8
        for (int v = 0; v < NV; ++v) xv[v] = LoadX<NV, kHalf>(x, v);
#pragma GCC unroll 8
        for (int r = 0; r < MR; ++r) {
          const ByteWeights wv = LoadWeights(w + r);
#pragma GCC unroll 8
          for (int v = 0; v < NV; ++v)
            acc[r / 4][r % 4][v] = DotX<NV, kHalf>(xv[v], wv, acc[r / 4][r % 4][v], v);
        }
        w += MR;
        if (!kIndexed) x += t.x_row;
      }
#pragma GCC unroll 2
      for (int h = 0; h < MR / 4; ++h) {
        if (4 * h < rows) EndPanel<NV>(t, row + 4 * h, rows - 4 * h, kInOrder, acc[h]);
      }
    }
  }
};

}  // namespace
}  // namespace SRT_ISA
}  // namespace sparsert
