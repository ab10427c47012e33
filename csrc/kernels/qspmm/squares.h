// qspmm by squares of 16 rows by 16 K-rows: 32 rows by 32 columns of sums at a time.
// Included once per instruction set, after its vec_*.h, dot_*.h and tiles_*.h, with SRT_ISA
// defined.
#pragma once

#include <cstring>
#include <type_traits>

#include "base/arch.h"
#include "kernels/qspmm/tile.h"
#include "kernels/spmm/feed.h"

namespace sparsert {
namespace SRT_ISA {
namespace {

// Streamed weights are fetched this many squares ahead.
constexpr int kSquaresAhead = 4;

// The scratch of an item; see QspmmScratch.
struct SquareScratch {
  float* slab;       // [block depth, in whole squares][tile]: the K-rows fed by taps
  int32_t* sums[2];  // [32][32] those of one step, and of the one before
  int32_t* starts;   // [32][16] what the sums of the rows start from
  int turn;
  float* tail;      // [16][tile]: the last K-rows that are read directly, filled up
  char* spread;     // [block depth / 16][2] squares of weights
  int32_t* blocks;  // [rows of the item][tile]: sums between blocks
};

// K-rows of one block: `squares` whole ones at `x`, and `tail` holds another one, or is nullptr.
struct SquareColumns {
  const char* x;
  int64_t x_row;  // bytes
  int squares;
  const char* tail;
  int64_t tail_row;
};

// The squares of one or two panels as they are stored.
struct DenseWeights {
  const char* panel[2];

  template <bool kMoreRows>
  inline void Begin() {}
  template <bool kMoreRows>
  inline void Next(int, bool) {}
  inline const char* At(int i, int square) const { return panel[i] + square * kSquareBytes; }
};

// The squares of one or two panels, spread into scratch as the first columns get there.
struct BitsWeights {
  const uint64_t* masks[2];
  const uint8_t* bytes[2];
  char* spread;
  bool done;

  template <bool kMoreRows>
  inline void Spread(int square) {
    char* to = spread + static_cast<int64_t>(square) * 2 * kSquareBytes;
    bytes[0] = SpreadSquare(masks[0] + 16 * square, bytes[0], to);
    if (kMoreRows) bytes[1] = SpreadSquare(masks[1] + 16 * square, bytes[1], to + kSquareBytes);
  }
  template <bool kMoreRows>
  inline void Begin() {
    if (!done) Spread<kMoreRows>(0);
  }
  template <bool kMoreRows>
  inline void Next(int square, bool last) {
    if (!done && !last) Spread<kMoreRows>(square + 1);
    BeforeTileLoads();
  }
  inline const char* At(int i, int square) const {
    return spread + (static_cast<int64_t>(square) * 2 + i) * kSquareBytes;
  }
};

template <bool kMoreRows, bool kMoreColumns, typename Weights>
SRT_INLINE void AddBlock(Weights* w, const SquareColumns& k, int64_t column, bool stream) {
  const int all = k.squares + (k.tail != nullptr);
  if (all == 0) return;
  const char* x = k.x + column * 4;
  w->template Begin<kMoreRows>();
  for (int s = 0; s < k.squares; ++s) {
    w->template Next<kMoreRows>(s, s + 1 == all);
    if (stream) {
#pragma GCC unroll 16
      for (int line = 0; line < 16; ++line) {
        __builtin_prefetch(w->At(0, s + kSquaresAhead) + 64 * line);
        if (kMoreRows) __builtin_prefetch(w->At(1, s + kSquaresAhead) + 64 * line);
      }
    }
    AddSquares<kMoreRows, kMoreColumns>(w->At(0, s), w->At(1, s), x, k.x_row);
    x += 16 * k.x_row;
  }
  if (k.tail != nullptr) {
    w->template Next<kMoreRows>(k.squares, true);
    AddSquares<kMoreRows, kMoreColumns>(w->At(0, k.squares), w->At(1, k.squares),
                                        k.tail + column * 4, k.tail_row);
  }
}

// Sums of up to 32 rows and one or two vectors of columns that have yet to get to Y.
struct PendingSums {
  QspmmTile tile;
  int row, rows;
  int vecs = 0;  // 0: none
  const int32_t* sums;
};

template <int NV>
SRT_NOINLINE void EndSquares(const PendingSums& p) {
  for (int h = 0; h < 2 * kSquareRows && h < p.rows; h += 4) {
    IntVec acc[4][NV];
#pragma GCC unroll 4
    for (int r = 0; r < 4; ++r) {
#pragma GCC unroll 2
      for (int v = 0; v < NV; ++v) acc[r][v] = LoadInts(p.sums + (h + r) * 32 + v * Vec::kLanes);
    }
    EndPanel<NV>(p.tile, p.row + h, p.rows - h, kInOrder, acc);
  }
}

SRT_INLINE void EndPending(PendingSums* p) {
  if (p->vecs == 2) EndSquares<2>(*p);
  if (p->vecs == 1) EndSquares<1>(*p);
  p->vecs = 0;
}

// One or two panels times one or two vectors of columns from `v` on, of NV. While tile registers
// sum up, the vector unit ends what was summed up before.
template <bool kMoreRows, bool kMoreColumns, int NV, typename Weights>
SRT_INLINE void RunSquares(const QspmmTile& t, int row, int rows, int v, const SquareColumns& k,
                           SquareScratch* s, Weights* w, PendingSums* pending) {
  constexpr int64_t kKept = NV * Vec::kLanes * 4;
  const int64_t column = static_cast<int64_t>(v) * Vec::kLanes;
  int32_t* kept = s->blocks + row * (NV * Vec::kLanes) + column;
  if (t.first) {
    LoadStarts<kMoreRows, kMoreColumns>(s->starts);
  } else {
    LoadSums<kMoreRows, kMoreColumns>(kept, kKept);
  }
  AddBlock<kMoreRows, kMoreColumns>(w, k, column, t.stream && v == 0);
  if (!t.last) return StoreSums<kMoreRows, kMoreColumns>(kept, kKept);
  EndPending(pending);
  int32_t* sums = s->sums[s->turn];
  s->turn ^= 1;
  StoreSums<kMoreRows, kMoreColumns>(sums, 128);
  pending->vecs = kMoreColumns ? 2 : 1;
  pending->tile = t;
  pending->tile.y += column;
  pending->tile.r = t.r == nullptr ? nullptr : t.r + column;
  pending->tile.partial = t.partial && v + pending->vecs == NV;
  pending->row = row;
  pending->rows = rows;
  pending->sums = sums;
}

template <bool kMoreRows, int NV, typename Weights>
SRT_INLINE void RunPanels(const QspmmTile& t, int row, int rows, const SquareColumns& k,
                          SquareScratch* s, Weights w, PendingSums* pending) {
  if (t.first) {
    for (int r = 0; r < 2 * kSquareRows; ++r) {
      StoreInts(s->starts + r * Vec::kLanes, SetInts(r < rows ? t.start[row + r] : 0));
    }
    BeforeTileLoads();
  }
  for (int v = 0; v + 2 <= NV; v += 2) {
    Weights each = w;
    RunSquares<kMoreRows, true, NV>(t, row, rows, v, k, s, &each, pending);
    if constexpr (!std::is_same<Weights, DenseWeights>::value) w.done = true;
  }
  if (NV % 2 != 0) {
    RunSquares<kMoreRows, false, NV>(t, row, rows, NV - 1, k, s, &w, pending);
  }
}

DenseWeights WeightsOf(const DenseWeights&, const PackedMatrix& m, size_t at, int more, int,
                       const SquareScratch&) {
  const auto* values = reinterpret_cast<const char*>(m.values);
  const char* first = values + static_cast<int64_t>(m.value_offsets[at]) * 4;
  return {{first, more != 0 ? values + static_cast<int64_t>(m.value_offsets[at + 1]) * 4 : first}};
}

BitsWeights WeightsOf(const BitsWeights&, const PackedMatrix& m, size_t at, int more, int squares,
                      const SquareScratch& s) {
  BitsWeights w;
  for (int i = 0; i < 2; ++i) {
    const float* panel = m.values + m.value_offsets[at + (i != 0 ? more : 0)];
    w.masks[i] = reinterpret_cast<const uint64_t*>(panel);
    w.bytes[i] = reinterpret_cast<const uint8_t*>(w.masks[i] + 16 * squares);
  }
  w.spread = s.spread;
  w.done = false;
  return w;
}

template <typename Weights, int NV>
void RunSquareTile(const QspmmArgs& args, const PackedMatrix& m, int tile, const float* x,
                   QspmmTile* t, SquareScratch s) {
  const SpmmArgs& a = args.product;
  PendingSums pending;
  constexpr int kTile = NV * Vec::kLanes;
  uint32_t fill_bits = t->fill;
  fill_bits |= fill_bits << 8;
  fill_bits |= fill_bits << 16;
  float fill;
  std::memcpy(&fill, &fill_bits, sizeof(fill));
  for (int block = 0; block < m.blocks; ++block) {
    const int left = m.depth - block * m.block_depth;
    const int depth = left < m.block_depth ? left : m.block_depth;
    SquareColumns k;
    k.tail = nullptr;
    k.tail_row = kTile * 4;
    if (a.direct) {
      const float* rows = x + static_cast<int64_t>(block) * m.block_depth * a.x_row;
      k.x = reinterpret_cast<const char*>(rows);
      k.x_row = a.x_row * 4;
      k.squares = depth / kSquareRows;
      if (depth % kSquareRows != 0) {
        rows += static_cast<int64_t>(k.squares) * kSquareRows * a.x_row;
        for (int i = 0; i < depth % kSquareRows; ++i) {
#pragma GCC unroll 8
          for (int v = 0; v < NV; ++v) {
            Store(s.tail + i * kTile + v * Vec::kLanes,
                  LoadU(rows + i * a.x_row + v * Vec::kLanes));
          }
        }
        k.tail = reinterpret_cast<const char*>(s.tail);
      }
    } else {
      if (t->fill == 0) {
        FeedTile<NV, false>(a, m, block, tile, x, Zero(), s.slab);
      } else {
        FeedTile<NV, true>(a, m, block, tile, x, Set1(fill), s.slab);
      }
      k.x = reinterpret_cast<const char*>(s.slab);
      k.x_row = kTile * 4;
      k.squares = (depth + kSquareRows - 1) / kSquareRows;
    }
    BeforeTileLoads();
    t->block = block;
    t->first = block == 0;
    t->last = block + 1 >= m.blocks;
    const int squares = k.squares + (k.tail != nullptr);
    for (int p = t->panel_begin; p < t->panel_end; p += 2) {
      const size_t at = static_cast<size_t>(block) * m.panels + p;
      const int row = p * kSquareRows;
      const bool more = p + 1 < t->panel_end;
      const int end = more ? 2 * kSquareRows : kSquareRows;
      const int rows = m.rows - row < end ? m.rows - row : end;
      const Weights w = WeightsOf(Weights(), m, at, more, squares, s);
      if (more) {
        RunPanels<true, NV>(*t, row, rows, k, &s, w, &pending);
      } else {
        RunPanels<false, NV>(*t, row, rows, k, &s, w, &pending);
      }
    }
  }
  EndPending(&pending);
}

template <typename Weights>
SRT_INLINE void RunQspmmSquares(const void* args, void* const* io, int64_t begin, int64_t end,
                                void* scratch) {
  const QspmmArgs& q = *static_cast<const QspmmArgs*>(args);
  const SpmmArgs& a = q.product;
  const TileRegisters registers;
  for (int64_t item = begin; item < end; ++item) {
    QspmmItem found = FindItem(q, io, item);
    QspmmTile& t = found.tile;
    if (t.panel_begin == t.panel_end) continue;  // few panels, unevenly filled
    const PackedMatrix& m = *found.weights;
    const int tile = found.index;
    const int vecs = found.vecs;
    const float* x = found.x;
    t.stream = tile == 0 || a.fetch_weights;
    SquareScratch s;
    const SquareScratchFloats sizes = SquareScratchOf(a, m.block_depth);
    auto* at = static_cast<float*>(scratch);
    s.slab = at;
    s.sums[0] = reinterpret_cast<int32_t*>(at += sizes.slab);
    s.sums[1] = s.sums[0] + 32 * 32;
    s.starts = s.sums[1] + 32 * 32;
    s.turn = 0;
    s.tail = at += sizes.sums;
    s.spread = reinterpret_cast<char*>(at += sizes.tail);
    at += sizes.spread;
    const int64_t first_row = static_cast<int64_t>(t.panel_begin) * m.panel_rows;
    s.blocks = reinterpret_cast<int32_t*>(at);
    if (m.blocks > 1) s.blocks -= first_row * vecs * Vec::kLanes;
    t.sums = nullptr;
    switch (vecs) {
#define SRT_WIDTH(n)                                 \
  case n:                                            \
    RunSquareTile<Weights, n>(q, m, tile, x, &t, s); \
    break;
      SRT_WIDTH(1)
      SRT_WIDTH(2)
      SRT_WIDTH(3)
      SRT_WIDTH(4)
      SRT_WIDTH(5)
      SRT_WIDTH(6)
#undef SRT_WIDTH
      default:
        break;
    }
  }
}

}  // namespace

void QspmmDense16(const void* args, void* const* io, int64_t begin, int64_t end, void* scratch);
void QspmmDense16(const void* args, void* const* io, int64_t begin, int64_t end, void* scratch) {
  RunQspmmSquares<DenseWeights>(args, io, begin, end, scratch);
}

void QspmmBits16(const void* args, void* const* io, int64_t begin, int64_t end, void* scratch);
void QspmmBits16(const void* args, void* const* io, int64_t begin, int64_t end, void* scratch) {
  RunQspmmSquares<BitsWeights>(args, io, begin, end, scratch);
}

}  // namespace SRT_ISA
}  // namespace sparsert
