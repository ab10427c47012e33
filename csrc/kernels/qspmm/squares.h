// qspmm by squares of 16 rows by 16 K-rows: 32 rows by 32 columns of sums at a time.
// Included once per instruction set, after its vec_*.h, dot_*.h and tiles_*.h, with SRT_ISA
// defined.
#pragma once

#include <cstring>

#include "base/arch.h"
#include "kernels/qspmm/tile.h"
#include "kernels/spmm/feed.h"

namespace sparsert {
namespace SRT_ISA {
namespace {

// The scratch of an item; see SquareScratchOf.
struct SquareScratch {
  float* slab;       // tile after tile, [block depth, in whole squares][tile]: K-rows fed by taps
  int32_t* sums[2];  // [32][32] those of one step, and of the one before
  int32_t* starts;   // [32][16] what the sums of the rows start from
  int turn;
  float* tail;      // [16][columns]: the last K-rows that are read directly, filled up
  char* spread;     // [block depth / 16][2] squares of weights
  int32_t* blocks;  // [rows of the item][columns]: sums between blocks
};

// Columns side by side in K-rows of one block: `squares` whole ones at `x`, and `tail` holds
// another one, or is nullptr.
struct SquareColumns {
  const char* x;
  int64_t x_row;  // bytes
  int squares;
  const char* tail;
  int64_t tail_row;
  int vec_begin;  // of the item's vectors
  int vecs;
};

// Weights that the next two panels will read: each step of the present ones asks for a share, so
// that they get to L2 while tile registers are busy. Where columns are few and shares large, other
// loads would wait for them.
struct WeightsAhead {
  static constexpr int64_t kMostLines = 12;
  const char* next = nullptr;
  int lines = 0;  // of a step

  void Plan(const float* begin, int64_t floats, int64_t steps) {
    next = reinterpret_cast<const char*>(begin);
    const int64_t share = floats / 16 / (steps + 1) + 1;
    lines = share <= kMostLines ? static_cast<int>(share) : 0;
  }
  void Step() {
    for (int i = 0; i < lines; ++i, next += 64) __builtin_prefetch(next, 0, 2);
  }
};

// The squares of one or two panels as they are stored.
struct DenseWeights {
  const char* panel[2];

  inline void SetDone() {}
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

  inline void SetDone() { done = true; }
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

// Sums of up to 32 rows and one or two vectors of columns that have yet to get to Y.
struct PendingSums {
  QspmmTile tile;
  int row, rows;
  int vecs = 0;  // 0: none
  int done = 0;  // rows that got there
  const int32_t* sums;
};

// Rows that are ended beside a product of squares, and how many products at a block's end have some
// beside them: all at once would fill up the core's window of instructions, and what early ones
// store would hold up tile loads.
constexpr int kEndedRows = 16;
constexpr int kEndingSquares = 4;
// The same where an activation takes as long as the product does.
constexpr int kActivatedRows = 4;
constexpr int kActivatingSquares = 2 * kSquareRows / kActivatedRows;

template <int NV>
SRT_INLINE void LoadPending(const PendingSums& p, int h, IntVec (&acc)[4][NV]) {
#pragma GCC unroll 4
  for (int r = 0; r < 4; ++r) {
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v) acc[r][v] = LoadInts(p.sums + (h + r) * 32 + v * Vec::kLanes);
  }
}

template <int NV, bool kResidual, bool kPlain, bool kScaled = false>
SRT_INLINE void EndSquareBytes(const PendingSums& p, int end_row) {
  const auto end = MakeByteEnd<kResidual, kPlain, kScaled>(*p.tile.args, kInOrder);
  for (int h = p.done; h < end_row; h += 4) {
    IntVec acc[4][NV];
    LoadPending<NV>(p, h, acc);
    StoreByteRows<NV>(p.tile, p.row + h, p.rows - h, kInOrder, end, acc);
  }
}

// Rows up to `end_row`.
template <int NV>
SRT_NOINLINE void EndSquares(const PendingSums& p, int end_row) {
  if (p.tile.args->then != nullptr) {
    return EndThen(p.tile, p.row + p.done, end_row - p.done, kInOrder, p.sums + 32 * p.done, 32,
                   NV);
  }
  if (p.tile.args->f32_output) {
    for (int h = p.done; h < end_row; h += 4) {
      IntVec acc[4][NV];
      LoadPending<NV>(p, h, acc);
      EndPanel<NV>(p.tile, p.row + h, p.rows - h, kInOrder, acc);
    }
    return;
  }
  switch (ByteEndOf(p.tile)) {
    case ByteEndKind::kSums:
      return EndSquareBytes<NV, false, false>(p, end_row);
    case ByteEndKind::kPlainSums:
      return EndSquareBytes<NV, false, true>(p, end_row);
    case ByteEndKind::kResidual:
      return EndSquareBytes<NV, true, false>(p, end_row);
    case ByteEndKind::kPlainResidual:
      return EndSquareBytes<NV, true, true>(p, end_row);
    case ByteEndKind::kScaledResidual:
      return EndSquareBytes<NV, true, true, true>(p, end_row);
  }
}

// Ends up to `rows` of the rows that are left.
SRT_INLINE void EndPending(PendingSums* p, int rows) {
  if (p->vecs == 0) return;
  const int end = p->rows - p->done < rows ? p->rows : p->done + rows;
  if (p->vecs == 2) {
    EndSquares<2>(*p, end);
  } else {
    EndSquares<1>(*p, end);
  }
  p->done = end;
  if (end == p->rows) p->vecs = 0;
}

// `x` and `tail` at the first column.
template <bool kMoreRows, bool kMoreColumns, typename Weights>
SRT_INLINE void AddBlock(Weights* w, const SquareColumns& k, const char* x, const char* tail,
                         WeightsAhead* ahead, PendingSums* pending) {
  const int all = k.squares + (k.tail != nullptr);
  if (all == 0) return;
  const QuantizeArgs* then = pending->vecs == 0 ? nullptr : pending->tile.args->then;
  const bool activates = then != nullptr && then->act.fn != UnaryFn::kNone;
  const int end_squares = activates ? kActivatingSquares : kEndingSquares;
  const int ended_rows = activates ? kActivatedRows : kEndedRows;
  const int ending = all > end_squares ? all - end_squares : all;
  w->template Begin<kMoreRows>();
  for (int s = 0; s < k.squares; ++s) {
    w->template Next<kMoreRows>(s, s + 1 == all);
    ahead->Step();
    AddSquares<kMoreRows, kMoreColumns>(w->At(0, s), w->At(1, s), x, k.x_row);
    x += 16 * k.x_row;
    if (s >= ending) EndPending(pending, ended_rows);
  }
  if (k.tail != nullptr) {
    w->template Next<kMoreRows>(k.squares, true);
    AddSquares<kMoreRows, kMoreColumns>(w->At(0, k.squares), w->At(1, k.squares), tail, k.tail_row);
  }
}

// The panels that are computed together, one or two.
struct SquareRows {
  int row, rows;
  WeightsAhead ahead;
};

// One or two panels times one or two vectors of columns from `v` on. While tile registers sum up,
// the vector unit ends what was summed up before.
template <bool kMoreRows, bool kMoreColumns, typename Weights>
SRT_INLINE void RunSquares(const QspmmItem& item, const SquareColumns& k, int v, SquareRows* r,
                           SquareScratch* s, Weights* w, PendingSums* pending) {
  const QspmmTile& t = item.tile;
  const int64_t kept_columns = static_cast<int64_t>(item.vecs) * Vec::kLanes;
  const int64_t column = static_cast<int64_t>(k.vec_begin + v) * Vec::kLanes;
  int32_t* kept = s->blocks + r->row * kept_columns + column;
  if (t.first) {
    LoadStarts<kMoreRows, kMoreColumns>(s->starts);
  } else {
    LoadSums<kMoreRows, kMoreColumns>(kept, kept_columns * 4);
  }
  const int64_t bytes = static_cast<int64_t>(v) * Vec::kLanes * 4;
  AddBlock<kMoreRows, kMoreColumns>(w, k, k.x + bytes, k.tail + bytes, &r->ahead, pending);
  if (!t.last) return StoreSums<kMoreRows, kMoreColumns>(kept, kept_columns * 4);
  EndPending(pending, 2 * kSquareRows);
  int32_t* sums = s->sums[s->turn];
  s->turn ^= 1;
  StoreSums<kMoreRows, kMoreColumns>(sums, 128);
  pending->vecs = kMoreColumns ? 2 : 1;
  pending->tile = t;
  pending->tile.y += column;
  pending->tile.r = t.r == nullptr ? nullptr : t.r + column;
  pending->tile.partial = t.partial && k.vec_begin + v + pending->vecs == item.vecs;
  pending->row = r->row;
  pending->rows = r->rows;
  pending->done = 0;
  pending->sums = sums;
}

template <bool kMoreRows, typename Weights>
SRT_INLINE void RunPanels(const QspmmItem& item, const SquareColumns& k, SquareRows* r,
                          SquareScratch* s, Weights* w, PendingSums* pending) {
  int v = 0;
  for (; v + 2 <= k.vecs; v += 2) {
    Weights each = *w;
    RunSquares<kMoreRows, true>(item, k, v, r, s, &each, pending);
    w->SetDone();
  }
  if (v < k.vecs) {
    Weights each = *w;
    RunSquares<kMoreRows, false>(item, k, v, r, s, &each, pending);
    w->SetDone();
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

// Feeds a tile of one block to the slab.
template <int NV>
void FeedSquares(const SpmmArgs& a, const QspmmItem& item, int block, int tile, float* slab) {
  uint32_t fill_bits = item.tile.fill;
  fill_bits |= fill_bits << 8;
  fill_bits |= fill_bits << 16;
  float fill;
  std::memcpy(&fill, &fill_bits, sizeof(fill));
  if (item.tile.fill == 0) {
    FeedTile<NV, false>(a, *item.weights, block, tile, item.x, 0.0f, slab);
  } else {
    FeedTile<NV, true>(a, *item.weights, block, tile, item.x, fill, slab);
  }
}

// Where the columns of one tile, fed by taps, lie in the slab.
SquareColumns TileColumns(const SpmmArgs& a, int tile, int depth, const float* slab) {
  const int begin = static_cast<int>(static_cast<int64_t>(tile) * a.vecs / a.tiles);
  SquareColumns k = {};
  k.vecs = static_cast<int>((tile + 1LL) * a.vecs / a.tiles) - begin;
  k.vec_begin = a.by_blocks ? begin : 0;
  k.squares = (depth + kSquareRows - 1) / kSquareRows;
  k.x = reinterpret_cast<const char*>(slab + static_cast<int64_t>(k.squares) * kSquareRows *
                                                 k.vec_begin * Vec::kLanes);
  k.x_row = static_cast<int64_t>(k.vecs) * Vec::kLanes * 4;
  return k;
}

// All columns of the item, from X itself.
SquareColumns DirectColumns(const SpmmArgs& a, const QspmmItem& item, int block, int depth,
                            float* tail) {
  const float* rows = item.x + static_cast<int64_t>(block) * item.weights->block_depth * a.x_row;
  SquareColumns k = {};
  k.vecs = item.vecs;
  k.x = reinterpret_cast<const char*>(rows);
  k.x_row = a.x_row * 4;
  k.squares = depth / kSquareRows;
  const int left = depth % kSquareRows;
  if (left == 0) return k;
  rows += static_cast<int64_t>(k.squares) * kSquareRows * a.x_row;
  const int64_t columns = static_cast<int64_t>(item.vecs) * Vec::kLanes;
  for (int i = 0; i < left; ++i) {
    for (int64_t c = 0; c < columns; c += Vec::kLanes) {
      Store(tail + i * columns + c, LoadU(rows + i * a.x_row + c));
    }
  }
  k.tail = reinterpret_cast<const char*>(tail);
  k.tail_row = columns * 4;
  return k;
}

void FeedColumns(const SpmmArgs& a, const QspmmItem& item, int block, int tile,
                 const SquareColumns& k) {
  auto* slab = const_cast<float*>(reinterpret_cast<const float*>(k.x));
  switch (k.vecs) {
#define SRT_WIDTH(n)                            \
  case n:                                       \
    FeedSquares<n>(a, item, block, tile, slab); \
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

template <typename Weights>
void RunSquareItem(const QspmmArgs& args, QspmmItem* item, SquareScratch s) {
  const SpmmArgs& a = args.product;
  const PackedMatrix& m = *item->weights;
  QspmmTile& t = item->tile;
  const bool is_first = a.by_blocks || item->index == 0 || a.fetch_weights;
  const int tile_begin = a.by_blocks ? 0 : item->index;
  const int tile_end = a.by_blocks && !a.direct ? a.tiles : tile_begin + 1;
  PendingSums pending;
  for (int block = 0; block < m.blocks; ++block) {
    const int left = m.depth - block * m.block_depth;
    const int depth = left < m.block_depth ? left : m.block_depth;
    const int squares = (depth + kSquareRows - 1) / kSquareRows;
    SquareColumns k;
    if (a.direct) {
      k = DirectColumns(a, *item, block, depth, s.tail);
    } else {
      for (int tile = tile_begin; tile < tile_end; ++tile) {
        FeedColumns(a, *item, block, tile, TileColumns(a, tile, depth, s.slab));
      }
    }
    t.block = block;
    t.first = block == 0;
    t.last = block + 1 >= m.blocks;
    for (int p = t.panel_begin; p < t.panel_end; p += 2) {
      const size_t at = static_cast<size_t>(block) * m.panels + p;
      const bool more = p + 1 < t.panel_end;
      SquareRows r;
      r.row = p * kSquareRows;
      const int end = more ? 2 * kSquareRows : kSquareRows;
      r.rows = m.rows - r.row < end ? m.rows - r.row : end;
      Weights w = WeightsOf(Weights(), m, at, more, squares, s);
      if (is_first && at + 2 < static_cast<size_t>(m.blocks) * m.panels) {
        const uint32_t next = m.value_offsets[at + 2];
        r.ahead.Plan(m.values + next, next - m.value_offsets[at],
                     static_cast<int64_t>(squares) * ((item->vecs + 1) / 2));
      }
      if (t.first) {
        for (int i = 0; i < 2 * kSquareRows; ++i) {
          StoreInts(s.starts + i * Vec::kLanes, SetInts(i < r.rows ? t.start[r.row + i] : 0));
        }
      }
      BeforeTileLoads();
      for (int tile = tile_begin; tile < tile_end; ++tile) {
        if (!a.direct) k = TileColumns(a, tile, depth, s.slab);
        if (more) {
          RunPanels<true>(*item, k, &r, &s, &w, &pending);
        } else {
          RunPanels<false>(*item, k, &r, &s, &w, &pending);
        }
      }
    }
  }
  EndPending(&pending, 2 * kSquareRows);
}

template <typename Weights>
SRT_INLINE void RunQspmmSquares(const void* args, void* const* io, int64_t begin, int64_t end,
                                void* scratch) {
  const QspmmArgs& q = *static_cast<const QspmmArgs*>(args);
  const SpmmArgs& a = q.product;
  const TileRegisters registers;
  for (int64_t i = begin; i < end; ++i) {
    QspmmItem item = FindItem(q, io, i);
    const QspmmTile& t = item.tile;
    if (t.panel_begin == t.panel_end) continue;  // few panels, unevenly filled
    const PackedMatrix& m = *item.weights;
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
    if (m.blocks > 1) s.blocks -= first_row * item.vecs * Vec::kLanes;
    RunSquareItem<Weights>(q, &item, s);
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
