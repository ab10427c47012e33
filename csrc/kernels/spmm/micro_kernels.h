// The spmm micro-kernels: one tile times one block of packed weights, a format each.
// Included once per instruction set, after its vec_*.h, with SRT_ISA defined.
#pragma once

#include <cstring>

#include "kernels/spmm/tile.h"

namespace sparsert {
namespace SRT_ISA {

// Whether a micro-kernel's tiles may be StackedTile, and whether it knows joined ends. Vectors of
// four lanes read few columns of a row for each row's end.
struct Stacks {
  static constexpr bool kStacks = Vec::kLanes >= 8;
  static constexpr bool kJoins = false;
};
struct StacksNot {
  static constexpr bool kStacks = false;
  static constexpr bool kJoins = false;
};

// Of which of a tile's vectors only the lower lanes are used, or that the ends of rows are joined:
// kLower.
constexpr int kNoneLower = 0;
constexpr int kLastLower = 1;
constexpr int kAllLower = 2;
constexpr int kJoined = 3;

template <int NV, int kLower>
SRT_INLINE constexpr bool IsLower(int v) {
  return kLower == kAllLower || (kLower == kLastLower && v == NV - 1);
}

// One vector of a tile that is NV wide.
template <int NV, int kLower>
SRT_INLINE Vec LoadX(const float* x, int v) {
  return IsLower<NV, kLower>(v) ? LoadLower(x + v * Vec::kLanes) : LoadU(x + v * Vec::kLanes);
}
template <int NV, int kLower>
SRT_INLINE Vec FmaX(Vec w, Vec x, Vec acc, int v) {
  return IsLower<NV, kLower>(v) ? FmaLower(w, x, acc) : Fma(w, x, acc);
}

// NEON: a multiply-add takes one factor from a lane of a Quad. Elsewhere it is broadcast as it is
// loaded.
constexpr bool kFmaByLane = Vec::kLanes == 4 && Vec::kRegisters == 32;

// For NEON, where the K-rows of a tile lie: a copy that stays in registers, with a stride in bytes,
// which AArch64 multiplies and adds to an address in one instruction.
struct TileRows {
  explicit TileRows(const SpmmTile& t)
      : x(reinterpret_cast<const char*>(t.x)), stride(t.x_row * 4) {}
  const float* operator[](uint64_t id) const {
    return reinterpret_cast<const float*>(x + static_cast<int64_t>(id) * stride);
  }

  const char* x;
  int64_t stride;
};

// The compiler may not load what follows before: registers would not suffice.
SRT_INLINE void EndLoads() { __asm__ volatile("" ::: "memory"); }

// Streamed weights are fetched this far ahead: the next page, where hardware prefetchers stop.
constexpr int kWeightsAhead = 1024;

// Asks for as many ids and weights as are about to be used.
SRT_INLINE void FetchWeights(const uint16_t* id, int ids, const float* w, int weights) {
  for (int i = 0; i < weights; i += 16) __builtin_prefetch(w + kWeightsAhead + i);
  for (int i = 0; i < ids; i += 32) __builtin_prefetch(id + kWeightsAhead + i);
}

// Adds the products of `n` columns whose pattern P says which of the panel's 4 rows are non-zero.
template <int P, int NV, int kLower>
SRT_INLINE void AddPattern(int n, const uint16_t*& id, const float*& w, const SpmmTile& t,
                           Vec (&acc)[4][NV]) {
  for (int i = 0; i < n; ++i) {
    const float* x = t.x + *id++ * t.x_row;
    Vec xv[NV];
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v) xv[v] = LoadX<NV, kLower>(x, v);
#pragma GCC unroll 4
    for (int r = 0; r < 4; ++r) {
      if ((P >> r & 1) == 0) continue;
      const Vec wv = Set1(*w++);
#pragma GCC unroll 8
      for (int v = 0; v < NV; ++v) acc[r][v] = FmaX<NV, kLower>(wv, xv[v], acc[r][v], v);
    }
  }
}

struct Pat4Micro : StacksNot {
  template <int NV, int kLower>
  static void Run(const PackedMatrix& m, const SpmmTile& t) {
    const size_t at = static_cast<size_t>(t.block) * m.panels + t.panel_begin;
    const uint16_t* count = m.counts + at * kPatterns;
    const uint16_t* id = m.ids + m.id_offsets[at];
    const float* w = m.values + m.value_offsets[at];
    for (int p = t.panel_begin; p < t.panel_end; ++p) {
      const int row = p * 4;
      const int rows = m.rows - row < 4 ? m.rows - row : 4;
      if (t.last && t.ahead) {
        for (int r = 0; r < rows; ++r) FetchRow<NV>(t, row + r);
      }
      Vec acc[4][NV];
#pragma GCC unroll 4
      for (int r = 0; r < 4; ++r) {
        if (r < rows) {
          BeginRow<NV>(t, row + r, acc[r]);
        } else {
#pragma GCC unroll 8
          for (int v = 0; v < NV; ++v) acc[r][v] = Zero();
        }
      }
      AddPattern<1, NV, kLower>(count[0], id, w, t, acc);
      AddPattern<2, NV, kLower>(count[1], id, w, t, acc);
      AddPattern<3, NV, kLower>(count[2], id, w, t, acc);
      AddPattern<4, NV, kLower>(count[3], id, w, t, acc);
      AddPattern<5, NV, kLower>(count[4], id, w, t, acc);
      AddPattern<6, NV, kLower>(count[5], id, w, t, acc);
      AddPattern<7, NV, kLower>(count[6], id, w, t, acc);
      AddPattern<8, NV, kLower>(count[7], id, w, t, acc);
      AddPattern<9, NV, kLower>(count[8], id, w, t, acc);
      AddPattern<10, NV, kLower>(count[9], id, w, t, acc);
      AddPattern<11, NV, kLower>(count[10], id, w, t, acc);
      AddPattern<12, NV, kLower>(count[11], id, w, t, acc);
      AddPattern<13, NV, kLower>(count[12], id, w, t, acc);
      AddPattern<14, NV, kLower>(count[13], id, w, t, acc);
      AddPattern<15, NV, kLower>(count[14], id, w, t, acc);
      count += kPatterns;
      EndRows<4, NV>(t, row, rows, acc);
    }
  }
};

// acc += w * one K-row of the tile.
template <int NV, int kLower>
SRT_INLINE void AddRow(Vec w, const float* x, Vec (&acc)[NV]) {
#pragma GCC unroll 8
  for (int v = 0; v < NV; ++v) acc[v] = FmaX<NV, kLower>(w, LoadX<NV, kLower>(x, v), acc[v], v);
}

struct CsrMicro : StacksNot {
  static constexpr int kRowsAhead = 6;

  template <int NV, int kLower>
  static void Run(const PackedMatrix& m, const SpmmTile& t) {
    const size_t at = static_cast<size_t>(t.block) * m.panels + t.panel_begin;
    const uint16_t* count = m.counts + at * 2 * kCsrPanelRows;
    const uint16_t* id = m.ids + m.id_offsets[at];
    const float* w = m.values + m.value_offsets[at];
    const int row_begin = t.panel_begin * kCsrPanelRows;
    const int row_end = t.panel_end * kCsrPanelRows < m.rows ? t.panel_end * kCsrPanelRows : m.rows;
    const bool ahead = t.last && t.ahead;
    for (int r = row_begin; r < row_end; ++r) {
      if (ahead && r + kRowsAhead < row_end) {
        FetchRow<NV>(t, (r + kRowsAhead) / kCsrPanelRows * kCsrPanelRows + count[2 * kRowsAhead]);
      }
      const int row = r / kCsrPanelRows * kCsrPanelRows + *count++;
      const int n = *count++;
      if (t.stream) FetchWeights(id, n, w, n);
      Vec acc[NV];
      BeginRow<NV>(t, row, acc);
      int i = 0;
      if (NV <= 4) {
        // Narrow tiles: further sets of sums hide the latency of the multiply-adds, and weights
        // are loaded by fours, for a broadcast takes a load as long as a vector of X does.
        constexpr int kSets = NV <= 2 ? 3 : 1;
        Vec more[kSets][NV];
#pragma GCC unroll 4
        for (int s = 0; s < kSets; ++s) {
#pragma GCC unroll 8
          for (int v = 0; v < NV; ++v) more[s][v] = Zero();
        }
        Vec(&odd)[NV] = more[0];
        Vec(&third)[NV] = kSets == 3 ? more[kSets - 2] : acc;
        Vec(&fourth)[NV] = more[kSets - 1];
        for (; i + 4 <= n; i += 4) {
          const Quad q = LoadQuad(w + i);
          uint64_t ids;
          memcpy(&ids, id + i, sizeof(ids));
          AddRow<NV, kLower>(Lane<0>(q), t.x + (ids & 0xffff) * t.x_row, acc);
          AddRow<NV, kLower>(Lane<1>(q), t.x + (ids >> 16 & 0xffff) * t.x_row, odd);
          AddRow<NV, kLower>(Lane<2>(q), t.x + (ids >> 32 & 0xffff) * t.x_row, third);
          AddRow<NV, kLower>(Lane<3>(q), t.x + (ids >> 48) * t.x_row, fourth);
        }
        if (i + 2 <= n) {
          AddRow<NV, kLower>(Set1(w[i]), t.x + id[i] * t.x_row, acc);
          AddRow<NV, kLower>(Set1(w[i + 1]), t.x + id[i + 1] * t.x_row, odd);
          i += 2;
        }
#pragma GCC unroll 4
        for (int s = 0; s < kSets; ++s) {
#pragma GCC unroll 8
          for (int v = 0; v < NV; ++v) acc[v] = Add(acc[v], more[s][v]);
        }
      }
      if constexpr (kFmaByLane && NV > 4) {
        const TileRows x(t);
        for (; i + 4 <= n; i += 4) {
          const Quad q = LoadQuad(w + i);
          uint64_t ids;
          memcpy(&ids, id + i, sizeof(ids));
          AddRow<NV, kLower>(Lane<0>(q), x[ids & 0xffff], acc);
          AddRow<NV, kLower>(Lane<1>(q), x[ids >> 16 & 0xffff], acc);
          AddRow<NV, kLower>(Lane<2>(q), x[ids >> 32 & 0xffff], acc);
          AddRow<NV, kLower>(Lane<3>(q), x[ids >> 48], acc);
        }
      }
      for (; i < n; ++i) AddRow<NV, kLower>(Set1(w[i]), t.x + id[i] * t.x_row, acc);
      id += n;
      w += n;
      EndRow<NV>(t, row, acc);
    }
  }
};

// Two rows += their weights times one K-row of the tile.
template <int NV, int kLower>
SRT_INLINE void AddShared(Vec wa, Vec wb, const float* x, Vec (&a)[NV], Vec (&b)[NV]) {
#pragma GCC unroll 8
  for (int v = 0; v < NV; ++v) {
    Vec xv = LoadX<NV, kLower>(x, v);
    KeepInRegister(&xv);
    a[v] = FmaX<NV, kLower>(wa, xv, a[v], v);
    b[v] = FmaX<NV, kLower>(wb, xv, b[v], v);
  }
}

// The columns of a pair of rows, by two of either kind: the most that four weights are enough for.
template <int NV, int kLower>
SRT_INLINE void AddTwos(const SpmmTile& t, const Csr2Pair& pair, const uint16_t*& id,
                        const float*& w, Vec (&a)[NV], Vec (&b)[NV]) {
  const TileRows x(t);
  const int both = pair.both / 2;
  const int single = pair.single / 2;
  for (int i = 0; i < both; ++i) {
    const Quad q = LoadQuad(w);
    uint32_t ids;
    memcpy(&ids, id, sizeof(ids));
    AddShared<NV, kLower>(Lane<0>(q), Lane<1>(q), x[ids & 0xffff], a, b);
    EndLoads();
    AddShared<NV, kLower>(Lane<2>(q), Lane<3>(q), x[ids >> 16], a, b);
    EndLoads();
    id += 2;
    w += 4;
  }
  if (pair.both % 2 != 0) {
    AddShared<NV, kLower>(Set1(w[0]), Set1(w[1]), x[id[0]], a, b);
    ++id;
    w += 2;
  }
  for (int j = 0; j < single; ++j) {
    const Quad q = LoadQuad(w);
    uint64_t ids;
    memcpy(&ids, id, sizeof(ids));
    AddRow<NV, kLower>(Lane<0>(q), x[ids & 0xffff], a);
    EndLoads();
    AddRow<NV, kLower>(Lane<1>(q), x[ids >> 16 & 0xffff], b);
    EndLoads();
    AddRow<NV, kLower>(Lane<2>(q), x[ids >> 32 & 0xffff], a);
    EndLoads();
    AddRow<NV, kLower>(Lane<3>(q), x[ids >> 48], b);
    EndLoads();
    id += 4;
    w += 4;
  }
}

template <int NV, typename Tile>
SRT_INLINE void FetchPair(const Tile& t, int panel_row, const Csr2Pair& pair) {
  FetchRow<NV>(t, panel_row + pair.row[0]);
  if (pair.row[1] != kNoRow) FetchRow<NV>(t, panel_row + pair.row[1]);
}

struct Csr2Micro : Stacks {
  static constexpr int kPairsAhead = 3;

  template <int NV, int kLower, typename Tile>
  static void Run(const PackedMatrix& m, const Tile& t) {
    const size_t at = static_cast<size_t>(t.block) * m.panels + t.panel_begin;
    const auto* pair = reinterpret_cast<const Csr2Pair*>(m.counts) + at * (m.panel_rows / 2);
    const uint16_t* id = m.ids + m.id_offsets[at];
    const float* w = m.values + m.value_offsets[at];
    const bool ahead = t.last && t.ahead;
    for (int p = t.panel_begin; p < t.panel_end; ++p) {
      const int panel_row = p * m.panel_rows;
      const int rows = m.rows - panel_row < m.panel_rows ? m.rows - panel_row : m.panel_rows;
      const Csr2Pair* end = pair + (rows + 1) / 2;
      for (; pair != end; ++pair) {
        if (ahead && end - pair > kPairsAhead) FetchPair<NV>(t, panel_row, pair[kPairsAhead]);
        const int row_a = panel_row + pair->row[0];
        const int row_b = panel_row + pair->row[1];
        const bool has_b = pair->row[1] != kNoRow;
        if (t.stream)
          FetchWeights(id, pair->both + 2 * pair->single, w, 2 * (pair->both + pair->single));
        Vec a[NV], b[NV];
        BeginRow<NV>(t, row_a, a);
        BeginRow<NV>(t, has_b ? row_b : row_a, b);
        int i = 0;
        int j = 0;
        if (NV <= 2) {
          // As in csr: two more sets of sums.
          Vec c[NV], d[NV];
#pragma GCC unroll 8
          for (int v = 0; v < NV; ++v) c[v] = d[v] = Zero();
          for (; i + 2 <= pair->both; i += 2) {
            AddShared<NV, kLower>(Set1(w[0]), Set1(w[1]), t.x + id[0] * t.x_row, a, b);
            AddShared<NV, kLower>(Set1(w[2]), Set1(w[3]), t.x + id[1] * t.x_row, c, d);
            id += 2;
            w += 4;
          }
          if (i < pair->both) {
            AddShared<NV, kLower>(Set1(w[0]), Set1(w[1]), t.x + id[0] * t.x_row, c, d);
            ++i;
            ++id;
            w += 2;
          }
          for (; j + 2 <= pair->single; j += 2) {
            const Quad q = LoadQuad(w);
            AddRow<NV, kLower>(Lane<0>(q), t.x + id[0] * t.x_row, a);
            AddRow<NV, kLower>(Lane<1>(q), t.x + id[1] * t.x_row, b);
            AddRow<NV, kLower>(Lane<2>(q), t.x + id[2] * t.x_row, c);
            AddRow<NV, kLower>(Lane<3>(q), t.x + id[3] * t.x_row, d);
            id += 4;
            w += 4;
          }
#pragma GCC unroll 8
          for (int v = 0; v < NV; ++v) {
            a[v] = Add(a[v], c[v]);
            b[v] = Add(b[v], d[v]);
          }
        }
        if constexpr (kFmaByLane && NV > 2) {
          AddTwos<NV, kLower>(t, *pair, id, w, a, b);
          i = pair->both;
          j = pair->single / 2 * 2;
        }
        for (; i < pair->both; ++i) {
          AddShared<NV, kLower>(Set1(w[0]), Set1(w[1]), t.x + id[0] * t.x_row, a, b);
          ++id;
          w += 2;
        }
        for (; j < pair->single; ++j) {
          AddRow<NV, kLower>(Set1(w[0]), t.x + id[0] * t.x_row, a);
          AddRow<NV, kLower>(Set1(w[1]), t.x + id[1] * t.x_row, b);
          id += 2;
          w += 2;
        }
        EndRow<NV>(t, row_a, a);
        if (has_b) EndRow<NV>(t, row_b, b);
      }
      pair = end + (m.panel_rows / 2 - (rows + 1) / 2);
    }
  }
};

// The K-row that byte i of `ids` says.
template <int i>
SRT_INLINE const float* RowOf(const SpmmTile& t, uint32_t ids) {
  return t.x + (ids >> 8 * i & 0xff) * t.x_row;
}

// What a group's rows begin with is fetched while the one before is computed: partial sums, or the
// rows of R and Y that end it. `row`: within the panel.
template <int NV>
SRT_INLINE void FetchGroup(const SpmmTile& t, int panel_row, const Csr4Group& group) {
  const bool ahead = t.last && t.ahead;
#pragma GCC unroll 4
  for (int r = 0; r < 4; ++r) {
    if (group.row[r] == kNoRow) return;
    if (!t.first) FetchSums<NV>(t, panel_row + group.row[r]);
    if (ahead) FetchRow<NV>(t, panel_row + group.row[r]);
  }
}

// Weight i of four, in all lanes: broadcast as it is loaded, which takes a load as long as a vector
// of X does, or from a register that holds the four.
template <bool kByFours>
struct Four {
  explicit Four(const float* p) : w(p) {}
  template <int i>
  Vec Get() const {
    return Set1(w[i]);
  }
  const float* w;
};
template <>
struct Four<true> {
  explicit Four(const float* p) : q(LoadQuad(p)) {}
  template <int i>
  Vec Get() const {
    return Lane<i>(q);
  }
  Quad q;
};

// The columns of a group.
template <int NV, int kLower, bool kByFours>
SRT_INLINE void AddGroup(const SpmmTile& t, const Csr4Group& group, const uint8_t*& id,
                         const float*& w, Vec (&acc)[4][NV]) {
  for (int i = 0; i < group.both; ++i) {
    uint16_t ids;
    memcpy(&ids, id, sizeof(ids));
    const Four<kByFours> f(w);
    AddShared<NV, kLower>(f.template Get<0>(), f.template Get<1>(), RowOf<0>(t, ids), acc[0],
                          acc[1]);
    AddShared<NV, kLower>(f.template Get<2>(), f.template Get<3>(), RowOf<1>(t, ids), acc[2],
                          acc[3]);
    id += 2;
    w += 4;
  }
  for (int i = 0; i < group.single; ++i) {
    uint32_t ids;
    memcpy(&ids, id, sizeof(ids));
    const Four<kByFours> f(w);
    AddRow<NV, kLower>(f.template Get<0>(), RowOf<0>(t, ids), acc[0]);
    AddRow<NV, kLower>(f.template Get<1>(), RowOf<1>(t, ids), acc[1]);
    AddRow<NV, kLower>(f.template Get<2>(), RowOf<2>(t, ids), acc[2]);
    AddRow<NV, kLower>(f.template Get<3>(), RowOf<3>(t, ids), acc[3]);
    id += 4;
    w += 4;
  }
}

// Half as many row ends as csr2, and successive groups of a large panel are equally long, so that
// they are predicted.
struct Csr4Micro : StacksNot {
  // Weights and ids of the next four groups or so: what is fetched earlier drives X from L1.
  static constexpr int kAhead = 256;

  template <int NV, int kLower>
  static void Run(const PackedMatrix& m, const SpmmTile& t) {
    const size_t at = static_cast<size_t>(t.block) * m.panels + t.panel_begin;
    const auto* group = reinterpret_cast<const Csr4Group*>(m.counts) + at * (m.panel_rows / 4);
    const auto* id = reinterpret_cast<const uint8_t*>(m.ids + m.id_offsets[at]);
    const float* w = m.values + m.value_offsets[at];
    for (int p = t.panel_begin; p < t.panel_end; ++p) {
      const int panel_row = p * m.panel_rows;
      const int rows = m.rows - panel_row < m.panel_rows ? m.rows - panel_row : m.panel_rows;
      const Csr4Group* end = group + (rows + 3) / 4;
      for (; group != end; ++group) {
        if (end - group > 1) FetchGroup<NV>(t, panel_row, group[1]);
        if (t.stream) {
          const int weights = 4 * (group->both + group->single);
          for (int i = 0; i < weights; i += 16) __builtin_prefetch(w + kAhead + i);
          for (int i = 0; i < weights; i += 64) __builtin_prefetch(id + 2 * kAhead + i);
        }
        Vec acc[4][NV];
#pragma GCC unroll 4
        for (int r = 0; r < 4; ++r) {
          const int row = group->row[r] != kNoRow ? group->row[r] : group->row[0];
          BeginRow<NV>(t, panel_row + row, acc[r]);
        }
        if (t.by_fours) {
          AddGroup<NV, kLower, true>(t, *group, id, w, acc);
        } else {
          AddGroup<NV, kLower, false>(t, *group, id, w, acc);
        }
#pragma GCC unroll 4
        for (int r = 0; r < 4; ++r) {
          if (group->row[r] != kNoRow) EndRow<NV>(t, panel_row + group->row[r], acc[r]);
        }
      }
      group = end + (m.panel_rows / 4 - (rows + 3) / 4);
    }
  }
};

// The first panels of a block that read X fetch its K-rows, this many columns ahead: behind them,
// nearly all rows are there.
constexpr int kColumnsAhead = 6;
constexpr int kFetchingPanels = 8;

// Adds the products of one K-row, in registers, to the sums of MR rows: more than those of weights
// that are loaded one by one would leave registers for.
template <int MR, int NV>
SRT_INLINE void AddByLanes(const float* w, const Vec (&x)[NV], Vec (&acc)[MR][NV]) {
#pragma GCC unroll 2
  for (int r = 0; r < MR; r += 4) {
    const Quad q = LoadQuad(w + r);
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v) {
      acc[r][v] = Fma(Lane<0>(q), x[v], acc[r][v]);
      acc[r + 1][v] = Fma(Lane<1>(q), x[v], acc[r + 1][v]);
      acc[r + 2][v] = Fma(Lane<2>(q), x[v], acc[r + 2][v]);
      acc[r + 3][v] = Fma(Lane<3>(q), x[v], acc[r + 3][v]);
    }
  }
}

// Panels of MR rows whose stored columns are whole: blocks of MR x 1, or every column (dense).
template <int MR, bool kIndexed>
struct PanelMicro : StacksNot {
  static constexpr bool kJoins = MR == 4 && Vec::kLowerLanes >= MR;

  template <int NV, int kLower>
  static void Run(const PackedMatrix& m, const SpmmTile& t) {
    constexpr bool kJoin = kLower == kJoined;
    constexpr int kWhole = kJoin ? NV - 1 : NV;
    const size_t at = static_cast<size_t>(t.block) * m.panels + t.panel_begin;
    const int depth = m.depth - t.block * m.block_depth;
    const int block_depth = depth < m.block_depth ? depth : m.block_depth;
    const uint16_t* count = kIndexed ? m.counts + at : nullptr;
    const uint16_t* id = kIndexed ? m.ids + m.id_offsets[at] : nullptr;
    const float* w = m.values + m.value_offsets[at];
    for (int p = t.panel_begin; p < t.panel_end; ++p) {
      const int row = p * MR;
      const int rows = m.rows - row < MR ? m.rows - row : MR;
      if (t.last && t.ahead) {
        for (int r = 0; r < rows; ++r) FetchRow<NV>(t, row + r);
      }
      Vec acc[MR][kWhole];
#pragma GCC unroll 8
      for (int r = 0; r < MR; ++r) {
        if (r < rows) {
          BeginRow<kWhole, NV>(t, row + r, acc[r]);
        } else {
#pragma GCC unroll 8
          for (int v = 0; v < kWhole; ++v) acc[r][v] = Zero();
        }
      }
      Vec ends = Zero();
      if constexpr (kJoin) ends = BeginJoined<NV>(t, row, rows);
      const int n = kIndexed ? *count++ : block_depth;
      const float* x = t.x;
      const bool fetch = t.fetch_x && p < t.panel_begin + (kIndexed ? kFetchingPanels : 1);
      for (int i = 0; i < n; ++i) {
        if (kIndexed) x = t.x + *id++ * t.x_row;
        if (fetch && i + kColumnsAhead < n) {
          const float* next =
              kIndexed ? t.x + id[kColumnsAhead - 1] * t.x_row : x + kColumnsAhead * t.x_row;
#pragma GCC unroll 8
          for (int v = 0; v < NV; ++v) __builtin_prefetch(next + v * Vec::kLanes);
        }
        if (t.stream && i % (16 / MR) == 0) __builtin_prefetch(w + kWeightsAhead);
        Vec xv[kWhole];
#pragma GCC unroll 8
        for (int v = 0; v < kWhole; ++v) xv[v] = LoadX<NV, kLower>(x, v);
        if constexpr (kFmaByLane) {
          AddByLanes<MR, NV>(w, xv, acc);
        } else {
#pragma GCC unroll 8
          for (int r = 0; r < MR; ++r) {
            const Vec wv = Set1(w[r]);
#pragma GCC unroll 8
            for (int v = 0; v < kWhole; ++v) acc[r][v] = FmaX<NV, kLower>(wv, xv[v], acc[r][v], v);
          }
          if constexpr (kJoin) {
            ends = FmaLower(LoadLowerMask(w, FirstN(MR)), Set1(x[kWhole * Vec::kLanes]), ends);
          }
        }
        w += MR;
        if (!kIndexed) x += t.x_row;
      }
      EndRows<MR, kWhole, NV>(t, row, rows, acc);
      if constexpr (kJoin) EndJoined<NV>(t, row, rows, ends);
    }
  }
};

}  // namespace SRT_ISA
}  // namespace sparsert
