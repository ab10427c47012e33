// qspmm's csr4: four rows of equal lengths at a time, out of many.
// Included once per instruction set, after its vec_*.h and dot_*.h, with SRT_ISA defined.
//
// Where a dot product takes a cycle, what hinders other formats are ends of loops that no predictor
// foresees and X from beyond L1. Here a group has two loops, whose lengths change slowly from group
// to group; one load brings the weights of four products; and a narrow tile of a block's X is
// brought together in L1: rows of a plane of 128 columns, say, lie in half of its sets. The sums of
// a panel's rows, which are computed in any order, wait in memory until bytes are made of them.
#pragma once

#include "kernels/qspmm/tile.h"

namespace sparsert {
namespace SRT_ISA {
namespace {

// Weights are fetched so many floats ahead: each tile reads them anew, from L2 or beyond.
constexpr int kCsr4Ahead = 1024;

SRT_INLINE void LoadFourWeights(const float* w, ByteWeights (&out)[4]) {
  const Quad q = LoadQuad(w);
  out[0] = ToWeights(Lane<0>(q));
  out[1] = ToWeights(Lane<1>(q));
  out[2] = ToWeights(Lane<2>(q));
  out[3] = ToWeights(Lane<3>(q));
}

// acc += the products of a group, whose ids and weights are read.
template <int NV>
SRT_INLINE void AddGroup(const Csr4Group& group, const float* slab, const uint8_t*& id,
                         const float*& w, IntVec (&acc)[4][NV]) {
  constexpr int kRow = NV * Vec::kLanes;
  for (int i = 0; i < group.both; ++i, id += 2, w += 4) {
    __builtin_prefetch(w + kCsr4Ahead);
    ByteWeights wv[4];
    LoadFourWeights(w, wv);
    const float* x[2] = {slab + id[0] * kRow, slab + id[1] * kRow};
#pragma GCC unroll 2
    for (int p = 0; p < 2; ++p) {
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v) {
        const ByteVec xv = LoadBytes(x[p] + v * Vec::kLanes);
        acc[2 * p][v] = Dot(xv, wv[2 * p], acc[2 * p][v]);
        acc[2 * p + 1][v] = Dot(xv, wv[2 * p + 1], acc[2 * p + 1][v]);
      }
    }
  }
  for (int i = 0; i < group.single; ++i, id += 4, w += 4) {
    __builtin_prefetch(w + kCsr4Ahead);
    ByteWeights wv[4];
    LoadFourWeights(w, wv);
#pragma GCC unroll 4
    for (int r = 0; r < 4; ++r) {
      const float* x = slab + id[r] * kRow;
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v) {
        acc[r][v] = Dot(LoadBytes(x + v * Vec::kLanes), wv[r], acc[r][v]);
      }
    }
  }
}

struct Csr4Micro {
  static constexpr bool kPreparesX = true;

  // The block's slab of X, its K-rows side by side.
  template <int NV>
  static const float* PrepareX(const float* x, int64_t x_row, int depth, float* slab) {
    constexpr int kRow = NV * Vec::kLanes;
    if (x_row == kRow) return x;
    for (int k = 0; k < depth; ++k) {
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v) {
        StoreU(slab + k * kRow + v * Vec::kLanes, LoadU(x + k * x_row + v * Vec::kLanes));
      }
    }
    return slab;
  }

  template <int NV, bool>
  static void Run(const PackedMatrix& m, const QspmmTile& t) {
    constexpr int kRow = NV * Vec::kLanes;
    const size_t at = static_cast<size_t>(t.block) * m.panels + t.panel_begin;
    const int groups = m.panel_rows / 4;
    const auto* panel = reinterpret_cast<const Csr4Group*>(m.counts) + at * groups;
    const auto* id = reinterpret_cast<const uint8_t*>(m.ids + m.id_offsets[at]);
    const float* w = m.values + m.value_offsets[at];
    for (int p = t.panel_begin; p < t.panel_end; ++p, panel += groups) {
      const int row = p * m.panel_rows;
      const int rows = m.rows - row < m.panel_rows ? m.rows - row : m.panel_rows;
      // Of several blocks, the sums of all rows have a place; else those of a panel.
      int32_t* sums = t.sums + (m.blocks > 1 ? static_cast<int64_t>(row) * kRow : 0);
      for (int g = 0; g < (rows + 3) / 4; ++g) {
        const Csr4Group& group = panel[g];
        IntVec acc[4][NV];
#pragma GCC unroll 4
        for (int r = 0; r < 4; ++r) {
          const bool exists = group.row[r] != kNoRow;
          const IntVec start = SetInts(exists && t.first ? t.start[row + group.row[r]] : 0);
#pragma GCC unroll 4
          for (int v = 0; v < NV; ++v) {
            acc[r][v] =
                exists && !t.first ? LoadInts(sums + group.row[r] * kRow + v * Vec::kLanes) : start;
          }
        }
        AddGroup<NV>(group, t.x, id, w, acc);
#pragma GCC unroll 4
        for (int r = 0; r < 4; ++r) {
          if (group.row[r] == kNoRow) continue;
#pragma GCC unroll 4
          for (int v = 0; v < NV; ++v) {
            StoreInts(sums + group.row[r] * kRow + v * Vec::kLanes, acc[r][v]);
          }
        }
      }
      if (t.last) EndRows<NV>(t, row, rows, sums);
    }
  }

  // What becomes of a panel's rows.
  template <int NV>
  static void EndRows(const QspmmTile& t, int row, int rows, const int32_t* sums) {
    constexpr int kRow = NV * Vec::kLanes;
    if (t.args->then != nullptr) return EndThen(t, row, rows, kInOrder, sums, kRow, NV);
    for (int r = 0; r < rows; r += 4, sums += 4 * kRow) {
      IntVec four[4][NV];
      for (int k = 0; k < 4; ++k) {
        for (int v = 0; v < NV; ++v) {
          four[k][v] = r + k < rows ? LoadInts(sums + k * kRow + v * Vec::kLanes) : SetInts(0);
        }
      }
      EndStoredSums<NV>(t, row + r, rows - r, kInOrder, four);
    }
  }
};

}  // namespace
}  // namespace SRT_ISA
}  // namespace sparsert
