// What cuts weights and X into the pieces that squares.h multiplies, a few rows at a time.
// Included once per instruction set, after its vec_*.h and tiles_*.h, with SRT_ISA defined.
#pragma once

#include "base/arch.h"
#include "kernels/spmm/feed.h"
#include "kernels/spmm/micro_kernels.h"

namespace sparsert {
namespace SRT_ISA {
namespace {

constexpr int kStepRows = 2 * kSquareRows;
constexpr int kSquareFloats = kSquareRows * kSquareRows;

// What the panels of one tile and block share.
struct SquareBlock {
  const SpmmArgs* args;
  const PackedMatrix* m;
  const float* x;  // as the item has it
  int tile;
  int vecs;
  int depth;
  int steps;
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

// Cuts the weights of one or two panels into pieces, four rows of a panel's step at a time.
template <typename Weights>
class WeightCutter {
 public:
  static constexpr int kQuarters = 4;

  void Start(const SquareBlock& b, int block, int panel, int panels, char* to) {
    const PackedMatrix& m = *b.m;
    const size_t at = static_cast<size_t>(block) * m.panels + panel;
    panels_ = panels;
    steps_ = b.steps;
    weights_.Init(m.values + m.value_offsets[at], m.values + m.value_offsets[at + panels - 1],
                  (b.depth + kSquareRows - 1) / kSquareRows);
    to_ = to;
    step_ = panel_ = quarter_ = 0;
    if (steps_ == 0) panel_ = panels_;
    check_ = Zero();
  }
  int left() const {
    return panel_ == panels_ ? 0 : ((panels_ - panel_) * steps_ - step_) * kQuarters - quarter_;
  }
  bool finite() const { return AllFinite(check_); }

  inline void Cut() {
    if (panel_ == panels_) return;
    if (quarter_ == 0) weights_.Begin(panel_, step_);
    if (2 * step_ + 1 < weights_.squares) {
      CutRows<true>();
    } else {
      CutRows<false>();
    }
    if (++quarter_ < kQuarters) return;
    quarter_ = 0;
    to_ += 2 * kPiecesBytes;
    if (++step_ < steps_) return;
    if (++panel_ == panels_) return;
    step_ = 0;
    to_ -= (2 * steps_ - 1) * kPiecesBytes;
  }

 private:
  // Works on copies: what is stored could be members, for all that the compiler knows.
  template <bool kBothSquares>
  inline void CutRows() {
    Weights weights = weights_;
    Vec check = check_;
    const int panel = panel_;
    const int step = step_;
    const int row = 4 * quarter_;
    char* const to = to_ + 64 * row;
#pragma GCC unroll 4
    for (int r = 0; r < 4; ++r) {
      const Vec first = weights.Row(panel, 2 * step, row + r);
      const Vec second = kBothSquares ? weights.Row(panel, 2 * step + 1, row + r) : Zero();
      StorePieces(to + 64 * r, first, second, FirstN(Vec::kLanes), &check);
    }
    weights_ = weights;
    check_ = check;
  }

  Weights weights_;
  char* to_ = nullptr;
  int panels_ = 0;
  int steps_ = 0;
  int step_ = 0, panel_ = 0, quarter_ = 0;
  Vec check_;
};

// Copies one vector of columns of K-rows that share a tap side by side.
SRT_INLINE void StageRows(const SquareBlock& b, const TapVec& tap, const uint32_t* channel,
                          int count, float* stage) {
  const SpmmArgs& a = *b.args;
  const float* x = b.x + tap.base;
  if (tap.mode == TapMode::kContiguous) {
    const Mask mask = MaskFromBits(tap.mask);
    for (int c = 0; c < count; ++c) {
      Store(stage + c * Vec::kLanes, LoadMask(x + channel[c] * a.x_row, mask));
    }
  } else if (tap.mode == TapMode::kPick) {
    const Mask mask = MaskFromBits(tap.mask);
    const PickIndex index = LoadPickIndex(a.taps.gather + tap.table);
    for (int c = 0; c < count; ++c) {
      Store(stage + c * Vec::kLanes, LoadPicked(x + channel[c] * a.x_row, index, mask));
    }
  } else {
    FeedMixed({b.x, a.x_row, channel, count, stage, Vec::kLanes}, tap, a.taps);
  }
}

// Copies one vector of columns of a block's K-rows side by side.
void StageColumn(const SquareBlock& b, int block, int v, float* stage) {
  const PackedMatrix& m = *b.m;
  const TapTable& table = b.args->taps;
  const uint32_t* channel = m.channels + static_cast<size_t>(block) * m.block_depth;
  const TapVec* taps =
      table.entries + static_cast<size_t>(b.tile) * table.taps * table.tile_vecs + v;
  for (uint32_t i = m.run_offsets[block]; i < m.run_offsets[block + 1]; ++i) {
    const FeedRun run = m.runs[i];
    StageRows(b, taps[run.tap * table.tile_vecs], channel, run.count, stage);
    stage += run.count * Vec::kLanes;
    channel += run.count;
  }
}

// Cuts a block of X into pieces, four pairs of K-rows of a vector at a time. A vector of those fed
// by taps is copied side by side before.
class ColumnCutter {
 public:
  void Start(const SpmmTile& t, const SquareBlock& b, int block, char* to, float* stage) {
    b_ = &b;
    t_ = &t;
    block_ = block;
    to_ = to;
    stage_ = stage;
    check_ = Zero();
    direct_ = b.args->direct;
    vec_ = 0;
    Begin();
    left_ = b.vecs * b.steps * 4;
  }
  // Calls of Cut() yet to come.
  int left() const { return left_; }
  bool finite() const { return AllFinite(check_); }

  inline void Cut() {
    if (left_ == 0) return;
    --left_;
    if (direct_) {
      CutRows<true>(x_ + vec_ * Vec::kLanes, b_->args->x_row);
    } else {
      if (step_ == 0 && quarter_ == 0) StageColumn(*b_, block_, vec_, stage_);
      CutRows<false>(stage_, Vec::kLanes);
    }
    if (++quarter_ < 4) return;
    quarter_ = 0;
    if (direct_) {
      if (++vec_ == b_->vecs) {
        vec_ = 0;
        ++step_;
      }
      const int64_t x_row = b_->args->x_row;
      ahead_ = vec_ + 1 == b_->vecs ? kStepRows * x_row - vec_ * Vec::kLanes : Vec::kLanes;
    } else if (++step_ == b_->steps) {
      ++vec_;
      Begin();
    }
  }

 private:
  // Works on copies: what is stored could be members, for all that the compiler knows.
  template <bool kFetches>
  inline void CutRows(const float* x, int64_t x_row) {
    const int first = step_ * kStepRows + 4 * quarter_;
    const int64_t ahead = ahead_;
    const Mask lanes = LanesOf(*t_, vec_, b_->vecs);
    char* const to =
        to_ + (static_cast<int64_t>(step_) * b_->vecs + vec_) * kPiecesBytes + 256 * quarter_;
    Vec check = check_;
    x += first * x_row;
    if ((step_ + 1) * kStepRows <= b_->depth) {
      const float* more = x + kSquareRows * x_row;
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i, x += x_row, more += x_row) {
        if (kFetches) {
          __builtin_prefetch(x + ahead);
          __builtin_prefetch(more + ahead);
        }
        CutPieces(to + 64 * i, LoadU(x), LoadU(more), lanes, &check);
      }
    } else {
      const int rows = b_->depth - first;
      for (int i = 0; i < 4; ++i) {
        const Vec upper = i < rows ? LoadU(x + i * x_row) : Zero();
        const Vec lower = kSquareRows + i < rows ? LoadU(x + (kSquareRows + i) * x_row) : Zero();
        CutPieces(to + 64 * i, upper, lower, lanes, &check);
      }
    }
    check_ = check;
  }

  // Of one vector of all K-rows, or of all vectors.
  void Begin() {
    const SpmmArgs& a = *b_->args;
    step_ = quarter_ = 0;
    ahead_ = b_->vecs == 1 ? kStepRows * a.x_row : Vec::kLanes;
    x_ = b_->x + (direct_ ? static_cast<int64_t>(block_) * b_->m->block_depth * a.x_row : 0);
  }

  const SquareBlock* b_ = nullptr;
  const SpmmTile* t_ = nullptr;
  int block_ = 0;
  char* to_ = nullptr;
  float* stage_ = nullptr;
  Vec check_;
  bool direct_ = false;
  int left_ = 0;
  int vec_ = 0, step_ = 0, quarter_ = 0;
  int64_t ahead_ = 0;  // from a vector of a K-row to the one that is cut after it
  const float* x_ = nullptr;
};

}  // namespace
}  // namespace SRT_ISA
}  // namespace sparsert
