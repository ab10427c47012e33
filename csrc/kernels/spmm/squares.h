// spmm by squares of 16 rows by 32 K-rows in tile registers: 32 rows by 32 columns of sums at a
// time. Tile registers multiply bf16, so floats are cut into three pieces of it each: results are
// as exact as those of multiply-adds of floats, and their products take about half of the time.
//
// The K-rows of two squares of weights, as they are packed, are one step: K-rows i and 16 + i of it
// are a pair. While tile registers multiply, the vector unit cuts the weights of the next panels
// and X of the next block into pieces, and ends the sums that are done. Blocks with a number that
// is not finite, of which pieces would make NaN, are computed by rows. Included once per
// instruction set, after its vec_*.h and tiles_*.h, with SRT_ISA defined.
#pragma once

#include <cstring>

#include "base/arch.h"
#include "kernels/spmm/pace.h"
#include "kernels/spmm/square_cutters.h"

namespace sparsert {
namespace SRT_ISA {
namespace {

constexpr int kSumsRow = 32;                // columns of sums
constexpr int kSumsFloats = 32 * kSumsRow;  // of two panels and two vectors
constexpr int64_t kSumsRowBytes = kSumsRow * sizeof(float);

// The scratch of a thread; see SpmmSquareFloatsOf.
struct SquareScratch {
  char* x[2];      // [steps][vectors]: pieces of columns; direct ones of the next block, too
  float* stage;    // [block depth]: one vector of columns of the K-rows fed by taps
  float* sums[2];  // [32][32]: those of the last panels, and of the ones before
  int x_turn = 0, sums_turn = 0;
  float* blocks;  // [panels / 2][vectors / 2][32][32]: sums between blocks
};

// Sums of up to 32 rows and one or two vectors of columns that have yet to get to Y.
struct PendingSums {
  SpmmTile tile;
  int row, rows;
  int next = 0;  // of the rows
  int vecs = 0;  // 0: none
  const float* sums;
};

template <int NV>
SRT_INLINE void EndSquares(const PendingSums& p, int begin, int end) {
  for (int r = begin; r < end; ++r) {
    const Vec bias = p.tile.bias == nullptr ? Zero() : Set1(p.tile.bias[p.row + r]);
    Vec acc[NV];
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v) acc[v] = Add(Load(p.sums + r * kSumsRow + v * Vec::kLanes), bias);
    EndRow<NV>(p.tile, p.row + r, acc);
  }
}

// Ends the next rows.
SRT_INLINE void EndPending(PendingSums* p, int rows) {
  const int end = p->rows < p->next + rows ? p->rows : p->next + rows;
  if (p->vecs == 2) EndSquares<2>(*p, p->next, end);
  if (p->vecs == 1) EndSquares<1>(*p, p->next, end);
  p->next = end;
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
                           const SquareScratch& s, const char* w_pieces, float* kept) {
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
    Vec acc[1] = {t.first ? Zero() : Load(kept + r * kSumsRow)};
    for (int k = 0; k < b.depth; ++k) {
      const int of_step = k % kStepRows;
      const char* pieces = w_pieces + (k / kStepRows * 2 + r / kSquareRows) * kPiecesBytes;
      const float w = Joined(pieces, r % kSquareRows, of_step % kSquareRows, of_step / kSquareRows);
      if (kSkipsZeros && w == 0.0f) continue;
      acc[0] = Fma(Set1(w), LoadU(x + k * x_row), acc[0]);
    }
    if (t.last) {
      if (t.bias != nullptr) acc[0] = Add(acc[0], Set1(t.bias[row + r]));
      EndRow<1>(t, row + r, acc);
    } else {
      Store(kept + r * kSumsRow, acc[0]);
    }
  }
}

// What the vector unit does while tile registers sum up: it cuts the weights of the next panels and
// X of the next block, and ends the sums before. Each part is short, so that products that are
// under way hide it.
template <typename Weights>
struct Chores {
  static constexpr int kEndRows = 2;  // at a time

  WeightCutter<Weights> weights;
  ColumnCutter columns;
  PendingSums pending;
  Pace weights_pace, columns_pace, pending_pace;
  SpmmTile fetch;  // whose rows of R and Y are asked for
  int fetch_row = 0, fetch_end = 0;

  SRT_NOINLINE void CutWeights(int count) {
    for (; count > 0; --count) weights.Cut();
  }
  SRT_NOINLINE void CutColumns(int count) {
    for (; count > 0; --count) columns.Cut();
  }
  void FinishWeights() { CutWeights(weights.left()); }
  void FinishColumns() { CutColumns(columns.left()); }
  void FinishPending() {
    if (pending.vecs != 0 && pending.next < pending.rows) EndRows(pending.rows);
    pending.vecs = 0;
  }

  SRT_NOINLINE void EndRows(int count) {
    if (pending.vecs != 0) EndPending(&pending, count);
    for (; count > 0 && fetch_row < fetch_end; --count) FetchRow<2>(fetch, fetch_row++);
  }

  inline void Do() {
    if (const int due = pending_pace.Due(); due > 0) EndRows(due * kEndRows);
    if (const int due = weights_pace.Due(); due > 0) CutWeights(due);
    if (const int due = columns_pace.Due(); due > 0) CutColumns(due);
  }
};

// One or two panels times one or two vectors of columns from `v` on; their sums become pending.
template <bool kMoreRows, bool kMoreColumns, typename Weights>
SRT_INLINE void RunSquares(const SpmmTile& t, int row, int rows, int v, const SquareBlock& b,
                           SquareScratch* s, const char* w, bool finite, Chores<Weights>* chores) {
  constexpr int kVecs = kMoreColumns ? 2 : 1;
  const int64_t column = static_cast<int64_t>(v) * Vec::kLanes;
  const int pair = (row / kSquareRows - t.panel_begin) / 2;
  float* kept = s->blocks + (static_cast<int64_t>(pair) * ((b.vecs + 1) / 2) + v / 2) * kSumsFloats;
  chores->pending_pace.Set(2 * kSquareRows / Chores<Weights>::kEndRows, b.steps * kBetween);
  chores->fetch_row = chores->fetch_end = 0;
  if (t.last && t.ahead) {
    chores->fetch = t;
    chores->fetch.y += column;
    if (t.r != nullptr) chores->fetch.r += column;
    chores->fetch_row = row;
    chores->fetch_end = row + rows;
  }
  if (t.first) {
    ZeroSums<kMoreRows, kMoreColumns>();
  } else {
    LoadSums<kMoreRows, kMoreColumns>(kept, kSumsRowBytes);
  }
  const char* at = w;
  const char* x = s->x[s->x_turn] + v * int64_t{kPiecesBytes};
  for (int step = 0; step < b.steps; ++step) {
    AddProducts<kMoreRows, kMoreColumns>(at, at + kPiecesBytes, x, x + kPiecesBytes,
                                         [&] { chores->Do(); });
    at += 2 * kPiecesBytes;
    x += static_cast<int64_t>(b.vecs) * kPiecesBytes;
  }
  if (!finite) {
    for (int i = 0; i < kVecs; ++i) {
      RunPlain<Weights::kSkipsZeros>(t, b, row, rows, v + i, *s, w, kept + i * Vec::kLanes);
    }
    BeforeTileLoads();
    return;
  }
  if (!t.last) {
    StoreSums<kMoreRows, kMoreColumns>(kept, kSumsRowBytes);
    return;
  }
  chores->FinishPending();
  float* sums = s->sums[s->sums_turn];
  s->sums_turn ^= 1;
  StoreSums<kMoreRows, kMoreColumns>(sums, kSumsRowBytes);
  PendingSums* pending = &chores->pending;
  pending->vecs = kVecs;
  pending->tile = t;
  pending->tile.y += column;
  pending->tile.r = t.r == nullptr ? nullptr : t.r + column;
  pending->tile.partial = t.partial && v + kVecs == b.vecs;
  pending->row = row;
  pending->rows = rows;
  pending->next = 0;
  pending->sums = sums;
}

template <bool kMoreRows, typename Weights>
SRT_INLINE void RunPanels(const SpmmTile& t, int row, int rows, const SquareBlock& b,
                          SquareScratch* s, const char* w, bool finite, Chores<Weights>* chores) {
  BeforeTileLoads();
  int v = 0;
  for (; v + 2 <= b.vecs; v += 2) {
    RunSquares<kMoreRows, true>(t, row, rows, v, b, s, w, finite, chores);
  }
  if (v < b.vecs) RunSquares<kMoreRows, false>(t, row, rows, v, b, s, w, finite, chores);
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

// A block of an item.
struct SquareJob {
  int64_t item = 0;
  int block = 0;
  SpmmTile tile;
  SquareBlock b;

  int panels(int panel) const { return panel + 1 < tile.panel_end ? 2 : 1; }
  void Begin(int number) {
    const PackedMatrix& m = *b.m;
    block = number;
    const int left = m.depth - block * m.block_depth;
    b.depth = left < m.block_depth ? left : m.block_depth;
    b.steps = (b.depth + kStepRows - 1) / kStepRows;
    tile.block = block;
    tile.first = block == 0;
    tile.last = block + 1 >= m.blocks;
  }
};

// The first block of an item from job->item to `end`. False if none has any panels.
bool FirstJob(const SpmmArgs& a, void* const* io, int64_t end, SquareJob* job) {
  for (; job->item < end; ++job->item) {
    job->b = FindItem(a, io, job->item, &job->tile);
    if (job->tile.panel_begin == job->tile.panel_end) continue;  // few panels, unevenly filled
    job->Begin(0);
    return true;
  }
  return false;
}

bool NextJob(const SpmmArgs& a, void* const* io, int64_t end, const SquareJob& now,
             SquareJob* next) {
  *next = now;
  if (now.block + 1 < now.b.m->blocks) {
    next->Begin(now.block + 1);
    return true;
  }
  ++next->item;
  return FirstJob(a, io, end, next);
}

// The pieces of weights that a call has cut: of the panels of one item, if there is room for all of
// them, which other tiles need again; else of two panels and of the next two.
template <typename Weights>
class WeightPieces {
 public:
  WeightPieces(char* base, const SpmmSquareFloats& sizes, WeightCutter<Weights>* cutter)
      : base_(base),
        bytes_(sizes.w * static_cast<int64_t>(sizeof(float))),
        places_(sizes.places),
        keeps_(sizes.keeps),
        cutter_(cutter) {}

  // Has the cutter cut those of two panels, unless they are there.
  void Start(const SquareJob& job, int panel) {
    const int units = (job.tile.panel_end - job.tile.panel_begin + 1) / 2;
    const int number = job.block * units + (panel - job.tile.panel_begin) / 2;
    if (!keeps_ || job.b.m != matrix_ || job.tile.panel_begin != panel_begin_) {
      matrix_ = job.b.m;
      panel_begin_ = job.tile.panel_begin;
      first_ = (place_ + 1) % places_;  // those at place_ are in use
      count_ = keeps_ ? 0 : number;
      finite_ = true;
    }
    place_ = (first_ + (keeps_ ? number : 0)) % places_;
    if (number < count_) return;
    count_ = number + 1;
    cutter_->Start(job.b, job.block, panel, job.panels(panel), base_ + place_ * bytes_);
    cuts_ = true;
  }

  // Once the cutter is done: where the pieces lie.
  const char* Take() {
    if (cuts_ && !cutter_->finite()) finite_ = false;
    cuts_ = false;
    return base_ + place_ * bytes_;
  }
  // Whether those that were taken, and all that are kept, are finite.
  bool finite() const { return finite_; }

 private:
  char* const base_;
  const int64_t bytes_;
  const int places_;
  const bool keeps_;
  WeightCutter<Weights>* const cutter_;
  int place_ = 0;
  bool cuts_ = false;
  // What is kept: the first `count_` of these panels, from place `first_` on.
  const PackedMatrix* matrix_ = nullptr;
  int panel_begin_ = 0;
  int first_ = 0;
  int count_ = 0;
  bool finite_ = true;
};

template <typename Weights>
void RunSpmmSquares(const void* args, void* const* io, int64_t begin, int64_t end, void* scratch) {
  const SpmmArgs& a = *static_cast<const SpmmArgs*>(args);
  const DenormalsAreZero guard;
  SquareJob jobs[2];
  jobs[0].item = begin;
  if (!FirstJob(a, io, end, &jobs[0])) return;
  const TileRegisters registers;
  const SpmmSquareFloats sizes = SpmmSquareFloatsOf(a, a.weights[0].block_depth);
  SquareScratch s;
  auto* at = static_cast<float*>(scratch);
  s.x[0] = reinterpret_cast<char*>(at);
  if (a.direct) at += sizes.x;
  s.x[1] = reinterpret_cast<char*>(at);
  at += sizes.x;
  s.stage = at;
  at += sizes.stage;
  for (float*& sums : s.sums) {
    sums = at;
    at += kSumsFloats;
  }
  char* const w = reinterpret_cast<char*>(at);
  s.blocks = at + sizes.places * sizes.w;

  Chores<Weights> chores;
  WeightPieces<Weights> pieces(w, sizes, &chores.weights);
  const SquareJob* now = &jobs[0];
  chores.columns.Start(now->tile, now->b, now->block, s.x[0], s.stage);
  chores.FinishColumns();
  pieces.Start(*now, now->tile.panel_begin);
  chores.FinishWeights();
  for (bool more = true; more;) {
    const bool x_finite = chores.columns.finite();
    SquareJob* const next = now == &jobs[0] ? &jobs[1] : &jobs[0];
    more = NextJob(a, io, end, *now, next);
    const int vec_pairs = (now->b.vecs + 1) / 2;
    const int calls = vec_pairs * now->b.steps * kBetween;  // for two panels
    // Copies by taps wait for inputs that lie apart, which products do not hide.
    const bool ahead = more && a.direct;
    if (ahead) {
      chores.columns.Start(next->tile, next->b, next->block, s.x[s.x_turn ^ 1], s.stage);
    }
    chores.columns_pace.Set(chores.columns.left(),
                            (now->tile.panel_end - now->tile.panel_begin + 1) / 2 * calls);
    for (int panel = now->tile.panel_begin; panel < now->tile.panel_end; panel += 2) {
      const char* rows_pieces = pieces.Take();
      const bool finite = x_finite && pieces.finite();
      if (panel + 2 < now->tile.panel_end) {
        pieces.Start(*now, panel + 2);
      } else if (more) {
        pieces.Start(*next, next->tile.panel_begin);
      }
      chores.weights_pace.Set(chores.weights.left(), calls);
      const int row = panel * kSquareRows;
      const int most = now->panels(panel) * kSquareRows;
      const int rows = now->b.m->rows - row < most ? now->b.m->rows - row : most;
      if (most > kSquareRows) {
        RunPanels<true>(now->tile, row, rows, now->b, &s, rows_pieces, finite, &chores);
      } else {
        RunPanels<false>(now->tile, row, rows, now->b, &s, rows_pieces, finite, &chores);
      }
      chores.FinishWeights();
    }
    if (ahead) {
      s.x_turn ^= 1;
    } else if (more) {
      chores.columns.Start(next->tile, next->b, next->block, s.x[s.x_turn], s.stage);
    }
    chores.FinishColumns();
    now = next;
  }
  chores.FinishPending();
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
