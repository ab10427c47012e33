// spmm by squares of 16 rows by 32 K-rows in tile registers: 32 rows by 32 columns of sums at a
// time. Tile registers multiply bf16, so floats are cut into three pieces of it each: results are
// as exact as those of multiply-adds of floats, and their products take about half of the time.
//
// The K-rows of two squares of weights, as they are packed, are one step: K-rows i and 16 + i of it
// are a pair. Weights are cut into pieces by the first columns that need them, X before each block.
// Blocks with a number that is not finite, of which pieces would make NaN, are computed by rows.
// Included once per instruction set, after its vec_*.h and tiles_*.h, with SRT_ISA defined.
#pragma once

#include <cstring>

#include "base/arch.h"
#include "kernels/spmm/feed.h"
#include "kernels/spmm/micro_kernels.h"

namespace sparsert {
namespace SRT_ISA {
namespace {

constexpr int kStepRows = 2 * kSquareRows;
constexpr int kSquareFloats = kSquareRows * kSquareRows;
constexpr int kSumsRow = 32;                // columns of sums
constexpr int kSumsFloats = 32 * kSumsRow;  // of two panels and two vectors
constexpr int64_t kSumsRowBytes = kSumsRow * sizeof(float);

// The scratch of an item; see SpmmSquareFloatsOf.
struct SquareScratch {
  char* x;         // [steps][vectors]: pieces of columns
  char* w;         // [steps][2]: pieces of rows
  float* stage;    // [block depth]: one vector of columns of the K-rows fed by taps
  float* sums[2];  // [32][32] those of one step, and of the one before
  float* starts;   // [32][16] what the sums of the rows start from
  int turn;
  float* blocks;  // [panels / 2][vectors / 2][32][32]: sums between blocks
};

// What the panels of one tile and block share.
struct SquareBlock {
  const SpmmArgs* args;
  const PackedMatrix* m;
  const float* x;  // as the item has it
  int tile;
  int vecs;
  int depth;
  int steps;
  bool finite;  // all of X
};

Mask LanesOf(const SpmmTile& t, int v, int vecs) {
  return t.partial && v + 1 == vecs ? t.tail : FirstN(Vec::kLanes);
}

// The weights of one or two panels, every one stored.
struct DenseWeights {
  static constexpr bool kSkipsZeros = false;
  const float* panel[2];
  int squares;

  void Init(const float* first, const float* second, int count) {
    panel[0] = first;
    panel[1] = second;
    squares = count;
  }
  inline void Begin(int, int) {}
  inline Vec Row(int i, int square, int r) {
    const float* at = panel[i] + square * kSquareFloats + r * kSquareRows;
    __builtin_prefetch(at + kWeightsAhead);
    return LoadU(at);
  }
};

// The same with a mask of each square's bytes, and those that are not 0.
struct BitsWeights {
  static constexpr bool kSkipsZeros = true;
  const uint64_t* masks[2];
  const uint8_t* bytes[2][2];  // of either square of a step
  int squares;

  void Init(const float* first, const float* second, int count) {
    squares = count;
    for (int i = 0; i < 2; ++i) {
      masks[i] = reinterpret_cast<const uint64_t*>(i == 0 ? first : second);
      bytes[i][1] = reinterpret_cast<const uint8_t*>(masks[i] + kSquareRows * count);
    }
  }
  inline void Begin(int i, int step) {
    const uint64_t* mask = masks[i] + 2 * step * kSquareRows;
    const uint8_t* at = bytes[i][1];
    bytes[i][0] = at;
#pragma GCC unroll 16
    for (int r = 0; r < kSquareRows; ++r) at += __builtin_popcountll(mask[r]);
    bytes[i][1] = at;
  }
  inline Vec Row(int i, int square, int r) {
    const uint64_t mask = masks[i][square * kSquareRows + r];
    const uint8_t*& at = bytes[i][square % 2];
    __builtin_prefetch(at + 4 * kWeightsAhead);
    const Vec row = SpreadBytes(mask, at);
    at += __builtin_popcountll(mask);
    return row;
  }
};

// Cuts rows [4 * quarter, 4 * quarter + 4) of a step of one or two panels into pieces.
template <bool kMoreRows, typename Weights>
SRT_INLINE void CutWeights(Weights* w, int step, int quarter, char* to, Vec* check) {
#pragma GCC unroll 2
  for (int i = 0; i < (kMoreRows ? 2 : 1); ++i) {
    if (quarter == 0) w->Begin(i, step);
#pragma GCC unroll 4
    for (int r = 4 * quarter; r < 4 * quarter + 4; ++r) {
      const Vec first = w->Row(i, 2 * step, r);
      const Vec second = 2 * step + 1 < w->squares ? w->Row(i, 2 * step + 1, r) : Zero();
      StorePieces(to + i * kPiecesBytes + 64 * r, first, second, FirstN(Vec::kLanes), check);
    }
  }
}

// Adds a block's steps; with kCuts, cuts each step's weights while the one before it is multiplied.
template <bool kMoreRows, bool kMoreColumns, bool kCuts, typename Weights>
SRT_INLINE void AddSteps(Weights* w, const SquareBlock& b, const char* x, char* pieces,
                         Vec* check) {
  if (b.steps == 0) return;
  if (kCuts) {
    for (int q = 0; q < 4; ++q) CutWeights<kMoreRows>(w, 0, q, pieces, check);
  }
  const int64_t x_step = static_cast<int64_t>(b.vecs) * kPiecesBytes;
  for (int step = 0; step < b.steps; ++step) {
    BeforeTileLoads();
    char* const next = pieces + 2 * kPiecesBytes;
    const bool cuts = kCuts && step + 1 < b.steps;
    AddProducts<kMoreRows, kMoreColumns>(
        pieces, pieces + kPiecesBytes, x, x + kPiecesBytes, [&](int quarter) {
          if (cuts) CutWeights<kMoreRows>(w, step + 1, quarter, next, check);
        });
    x += x_step;
    pieces = next;
  }
}

// Sums of up to 32 rows and one or two vectors of columns that have yet to get to Y.
struct PendingSums {
  SpmmTile tile;
  int row, rows;
  int vecs = 0;  // 0: none
  const float* sums;
};

template <int NV>
SRT_NOINLINE void EndSquares(const PendingSums& p) {
  for (int r = 0; r < p.rows; ++r) {
    Vec acc[NV];
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v) acc[v] = Load(p.sums + r * kSumsRow + v * Vec::kLanes);
    EndRow<NV>(p.tile, p.row + r, acc);
  }
}

SRT_INLINE void EndPending(PendingSums* p) {
  if (p->vecs == 2) EndSquares<2>(*p);
  if (p->vecs == 1) EndSquares<1>(*p);
  p->vecs = 0;
}

// Copies one vector of columns of a block's K-rows side by side.
void StageColumn(const SquareBlock& b, int block, int v, float* stage) {
  const SpmmArgs& a = *b.args;
  const PackedMatrix& m = *b.m;
  const uint32_t* channel = m.channels + static_cast<size_t>(block) * m.block_depth;
  const TapVec* taps =
      a.taps.entries + static_cast<size_t>(b.tile) * a.taps.taps * a.taps.tile_vecs + v;
  for (uint32_t i = m.run_offsets[block]; i < m.run_offsets[block + 1]; ++i) {
    const FeedRun run = m.runs[i];
    const TapVec& tap = taps[run.tap * a.taps.tile_vecs];
    if (tap.mode == TapMode::kContiguous) {
      const Mask mask = MaskFromBits(tap.mask);
      const float* x = b.x + tap.base;
      for (int c = 0; c < run.count; ++c) {
        Store(stage + c * Vec::kLanes, LoadMask(x + channel[c] * a.x_row, mask));
      }
    } else if (tap.mode == TapMode::kPick) {
      const Mask mask = MaskFromBits(tap.mask);
      const PickIndex index = LoadPickIndex(a.taps.gather + tap.table);
      const float* x = b.x + tap.base;
      for (int c = 0; c < run.count; ++c) {
        Store(stage + c * Vec::kLanes, LoadPicked(x + channel[c] * a.x_row, index, mask));
      }
    } else {
      FeedMixed({b.x, a.x_row, channel, run.count, stage, Vec::kLanes}, tap, a.taps);
    }
    stage += run.count * Vec::kLanes;
    channel += run.count;
  }
}

// Cuts K-rows `x_row` apart of one step into pieces; those from `rows` on are 0.
SRT_INLINE void CutColumn(const float* x, int64_t x_row, int rows, Mask lanes, char* to,
                          Vec* check) {
  if (rows >= kStepRows) {
#pragma GCC unroll 4
    for (int i = 0; i < kSquareRows; ++i) {
      StorePieces(to + 64 * i, LoadU(x + i * x_row), LoadU(x + (kSquareRows + i) * x_row), lanes,
                  check);
    }
    return;
  }
  for (int i = 0; i < kSquareRows; ++i) {
    const Vec first = i < rows ? LoadU(x + i * x_row) : Zero();
    const Vec second = kSquareRows + i < rows ? LoadU(x + (kSquareRows + i) * x_row) : Zero();
    StorePieces(to + 64 * i, first, second, lanes, check);
  }
}

// The pieces of a block of X. Returns whether it is all finite.
bool CutX(const SpmmTile& t, const SquareBlock& b, int block, const SquareScratch& s) {
  const SpmmArgs& a = *b.args;
  Vec check = Zero();
  if (a.direct) {
    for (int step = 0; step < b.steps; ++step) {
      const int k = step * kStepRows;
      const float* x = b.x + (static_cast<int64_t>(block) * b.m->block_depth + k) * a.x_row;
      for (int v = 0; v < b.vecs; ++v) {
        CutColumn(x + v * Vec::kLanes, a.x_row, b.depth - k, LanesOf(t, v, b.vecs),
                  s.x + (static_cast<int64_t>(step) * b.vecs + v) * kPiecesBytes, &check);
      }
    }
    return AllFinite(check);
  }
  for (int v = 0; v < b.vecs; ++v) {
    StageColumn(b, block, v, s.stage);
    for (int step = 0; step < b.steps; ++step) {
      const int k = step * kStepRows;
      CutColumn(s.stage + k * Vec::kLanes, Vec::kLanes, b.depth - k, LanesOf(t, v, b.vecs),
                s.x + (static_cast<int64_t>(step) * b.vecs + v) * kPiecesBytes, &check);
    }
  }
  return AllFinite(check);
}

// The weight that pieces came from; one that is not finite has no others than the first.
float Joined(const char* pieces, int r, int pair, int half) {
  float sum = 0.0f;
  for (int piece = 0; piece < kPieces; ++piece) {
    uint32_t bits = 0;
    std::memcpy(reinterpret_cast<char*>(&bits) + 2,
                pieces + piece * kSquareBytes + 64 * r + 4 * pair + 2 * half, 2);
    float value;
    std::memcpy(&value, &bits, sizeof(value));
    sum += value;
    if (!(sum - sum == 0.0f)) break;
  }
  return sum;
}

// One or two panels times one vector of columns, by multiply-adds of floats.
template <bool kSkipsZeros>
SRT_NOINLINE void RunPlain(const SpmmTile& tile, const SquareBlock& b, int row, int rows, int v,
                           const SquareScratch& s, float* kept) {
  const SpmmArgs& a = *b.args;
  SpmmTile t = tile;
  t.y += v * Vec::kLanes;
  if (t.r != nullptr) t.r += v * Vec::kLanes;
  t.partial = t.partial && v + 1 == b.vecs;
  const float* x = s.stage;
  int64_t x_row = Vec::kLanes;
  if (a.direct) {
    x = b.x + static_cast<int64_t>(t.block) * b.m->block_depth * a.x_row + v * Vec::kLanes;
    x_row = a.x_row;
  } else {
    StageColumn(b, t.block, v, s.stage);
  }
  for (int r = 0; r < rows; ++r) {
    Vec acc[1] = {t.first ? Set1(t.bias != nullptr ? t.bias[row + r] : 0.0f)
                          : Load(kept + r * kSumsRow)};
    for (int k = 0; k < b.depth; ++k) {
      const int of_step = k % kStepRows;
      const char* pieces = s.w + (k / kStepRows * 2 + r / kSquareRows) * kPiecesBytes;
      const float w = Joined(pieces, r % kSquareRows, of_step % kSquareRows, of_step / kSquareRows);
      if (kSkipsZeros && w == 0.0f) continue;
      acc[0] = Fma(Set1(w), LoadU(x + k * x_row), acc[0]);
    }
    if (t.last) {
      EndRow<1>(t, row + r, acc);
    } else {
      Store(kept + r * kSumsRow, acc[0]);
    }
  }
}

// One or two panels times one or two vectors of columns from `v` on. While tile registers sum up,
// the vector unit ends what was summed up before. Returns whether the weights are all finite.
template <bool kMoreRows, bool kMoreColumns, bool kCuts, typename Weights>
SRT_INLINE bool RunSquares(const SpmmTile& t, int row, int rows, int v, const SquareBlock& b,
                           SquareScratch* s, Weights* w, bool finite, PendingSums* pending) {
  constexpr int kVecs = kMoreColumns ? 2 : 1;
  const int64_t column = static_cast<int64_t>(v) * Vec::kLanes;
  const int pair = (row / kSquareRows - t.panel_begin) / 2;
  float* kept = s->blocks + (static_cast<int64_t>(pair) * ((b.vecs + 1) / 2) + v / 2) * kSumsFloats;
  if (t.last && t.ahead) {
    SpmmTile at = t;
    at.y += column;
    if (at.r != nullptr) at.r += column;
    for (int r = 0; r < rows; ++r) FetchRow<kVecs>(at, row + r);
  }
  if (t.first) {
    LoadStarts<kMoreRows, kMoreColumns>(s->starts);
  } else {
    LoadSums<kMoreRows, kMoreColumns>(kept, kSumsRowBytes);
  }
  Vec check = Zero();
  AddSteps<kMoreRows, kMoreColumns, kCuts>(w, b, s->x + v * int64_t{kPiecesBytes}, s->w, &check);
  if (kCuts) finite = AllFinite(check);
  if (!finite || !b.finite) {
    for (int i = 0; i < kVecs; ++i) {
      RunPlain<Weights::kSkipsZeros>(t, b, row, rows, v + i, *s, kept + i * Vec::kLanes);
    }
    BeforeTileLoads();
    return finite;
  }
  if (!t.last) {
    StoreSums<kMoreRows, kMoreColumns>(kept, kSumsRowBytes);
    return finite;
  }
  EndPending(pending);
  float* sums = s->sums[s->turn];
  s->turn ^= 1;
  StoreSums<kMoreRows, kMoreColumns>(sums, kSumsRowBytes);
  pending->vecs = kVecs;
  pending->tile = t;
  pending->tile.y += column;
  pending->tile.r = t.r == nullptr ? nullptr : t.r + column;
  pending->tile.partial = t.partial && v + kVecs == b.vecs;
  pending->row = row;
  pending->rows = rows;
  pending->sums = sums;
  return finite;
}

template <bool kMoreRows, typename Weights>
SRT_INLINE void RunPanels(const SpmmTile& t, int row, int rows, const SquareBlock& b,
                          SquareScratch* s, Weights* w, PendingSums* pending) {
  if (t.first) {
    for (int r = 0; r < 2 * kSquareRows; ++r) {
      Store(s->starts + r * Vec::kLanes,
            r < rows && t.bias != nullptr ? Set1(t.bias[row + r]) : Zero());
    }
    BeforeTileLoads();
  }
  if (b.vecs == 1) {
    RunSquares<kMoreRows, false, true>(t, row, rows, 0, b, s, w, true, pending);
    return;
  }
  const bool finite = RunSquares<kMoreRows, true, true>(t, row, rows, 0, b, s, w, true, pending);
  int v = 2;
  for (; v + 2 <= b.vecs; v += 2) {
    RunSquares<kMoreRows, true, false>(t, row, rows, v, b, s, w, finite, pending);
  }
  if (v < b.vecs) {
    RunSquares<kMoreRows, false, false>(t, row, rows, v, b, s, w, finite, pending);
  }
}

template <typename Weights>
void RunSquareTile(SquareBlock b, SpmmTile* t, SquareScratch s) {
  const PackedMatrix& m = *b.m;
  PendingSums pending;
  for (int block = 0; block < m.blocks; ++block) {
    const int left = m.depth - block * m.block_depth;
    b.depth = left < m.block_depth ? left : m.block_depth;
    b.steps = (b.depth + kStepRows - 1) / kStepRows;
    b.finite = CutX(*t, b, block, s);
    BeforeTileLoads();
    t->block = block;
    t->first = block == 0;
    t->last = block + 1 >= m.blocks;
    for (int p = t->panel_begin; p < t->panel_end; p += 2) {
      const size_t at = static_cast<size_t>(block) * m.panels + p;
      const int row = p * kSquareRows;
      const bool more = p + 1 < t->panel_end;
      const int end = more ? 2 * kSquareRows : kSquareRows;
      const int rows = m.rows - row < end ? m.rows - row : end;
      Weights w;
      w.Init(m.values + m.value_offsets[at], m.values + m.value_offsets[at + (more ? 1 : 0)],
             (b.depth + kSquareRows - 1) / kSquareRows);
      if (more) {
        RunPanels<true>(*t, row, rows, b, &s, &w, &pending);
      } else {
        RunPanels<false>(*t, row, rows, b, &s, &w, &pending);
      }
    }
  }
  EndPending(&pending);
}

// A work item: a tile of columns of one image and group, and the panels of one row split. `t` gets
// what stays the same from block to block.
SquareBlock FindItem(const SpmmArgs& a, void* const* io, int64_t item, SpmmTile* t) {
  const int64_t parts = static_cast<int64_t>(a.tiles) * a.splits;
  const int part = static_cast<int>(item % parts);
  const int split = a.by_rows ? part / a.tiles : part % a.splits;
  const int group = static_cast<int>(item / parts % a.groups);
  const int64_t image = item / parts / a.groups;
  SquareBlock b;
  b.args = &a;
  b.m = &a.weights[group];
  b.tile = a.by_rows ? part % a.tiles : part / a.splits;
  const int64_t vec_begin = static_cast<int64_t>(b.tile) * a.vecs / a.tiles;
  b.vecs = static_cast<int>((b.tile + 1LL) * a.vecs / a.tiles - vec_begin);
  const int64_t column = vec_begin * Vec::kLanes;
  b.x = static_cast<const float*>(io[0]) + image * a.x_image + group * a.x_group +
        (a.direct ? column : 0);

  *t = SpmmTile();
  const int64_t left = a.columns - column;
  t->partial = left < static_cast<int64_t>(b.vecs) * Vec::kLanes;
  t->tail = FirstN(t->partial ? static_cast<int>(left - (b.vecs - 1) * Vec::kLanes) : Vec::kLanes);
  t->y = static_cast<float*>(io[2]) + image * a.y_image + group * a.y_group + column;
  t->y_row = a.y_row;
  t->r = io[1] == nullptr
             ? nullptr
             : static_cast<const float*>(io[1]) + image * a.r_image + group * a.r_group + column;
  t->r_row = a.r_row;
  t->bias = a.bias == nullptr ? nullptr : a.bias + static_cast<int64_t>(group) * b.m->rows;
  t->act = a.act;
  t->ahead = a.fetch_ahead;
  const int32_t* bounds = a.split_panels + static_cast<int64_t>(group) * (a.splits + 1);
  t->panel_begin = bounds[split];
  t->panel_end = bounds[split + 1];
  return b;
}

template <typename Weights>
SRT_INLINE void RunSpmmSquares(const void* args, void* const* io, int64_t begin, int64_t end,
                               void* scratch) {
  const SpmmArgs& a = *static_cast<const SpmmArgs*>(args);
  const DenormalsAreZero guard;
  const TileRegisters registers;
  for (int64_t item = begin; item < end; ++item) {
    SpmmTile t;
    const SquareBlock b = FindItem(a, io, item, &t);
    if (t.panel_begin == t.panel_end) continue;  // few panels, unevenly filled
    const SpmmSquareFloats sizes = SpmmSquareFloatsOf(a, b.m->block_depth);
    SquareScratch s;
    auto* at = static_cast<float*>(scratch);
    s.x = reinterpret_cast<char*>(at);
    s.w = reinterpret_cast<char*>(at += sizes.x);
    s.stage = at += sizes.w;
    s.sums[0] = at += sizes.stage;
    s.sums[1] = s.sums[0] + kSumsFloats;
    s.starts = s.sums[1] + kSumsFloats;
    s.turn = 0;
    s.blocks = at + sizes.sums;
    RunSquareTile<Weights>(b, &t, s);
  }
}

}  // namespace

void SpmmDense16(const void* args, void* const* io, int64_t begin, int64_t end, void* scratch);
void SpmmDense16(const void* args, void* const* io, int64_t begin, int64_t end, void* scratch) {
  RunSpmmSquares<DenseWeights>(args, io, begin, end, scratch);
}

void SpmmBits16(const void* args, void* const* io, int64_t begin, int64_t end, void* scratch);
void SpmmBits16(const void* args, void* const* io, int64_t begin, int64_t end, void* scratch) {
  RunSpmmSquares<BitsWeights>(args, io, begin, end, scratch);
}

}  // namespace SRT_ISA
}  // namespace sparsert
