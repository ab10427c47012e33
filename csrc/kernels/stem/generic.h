// stem over tile registers. Included once per instruction set, after its vec_*.h and tiles_*.h,
// with SRT_ISA defined.
#pragma once

#include "kernels/inside.h"
#include "kernels/spmm/pace.h"
#include "kernels/spmm/tile.h"
#include "kernels/stem/stem.h"

namespace sparsert {
namespace SRT_ISA {
namespace {

static_assert(Vec::kLanes == kStemLanes, "a strip is a vector");

constexpr int kStemPanelRows = 16;
constexpr int kStemUnitRows = 2 * kStemPanelRows;
// Of a word row: its pieces lie side by side.
constexpr int kWordPiece = 64;
constexpr int kWordRow = kPieces * kWordPiece;
constexpr int kStemSumsRow = 2 * kStemLanes;  // of two output rows
constexpr int64_t kStemSumsRowBytes = kStemSumsRow * sizeof(float);

// Which lanes of a strip lie in the plane, with the kernel's column `kw`.
template <int kStride>
Mask LanesInside(const StemArgs& a, int64_t column, int64_t kw) {
  const int64_t first = column * kStride + kw - a.pad_w;
  const int64_t end = a.in_w - first;
  if (end <= 0) return FirstN(0);
  const int64_t low = first >= 0 ? 0 : (kStride - 1 - first) / kStride;
  return MaskFromBits(BitsInside(-low, (end + kStride - 1) / kStride - low));
}

// The inputs of 16 output columns.
template <int kStride>
SRT_INLINE Vec LoadWords(const float* p, const Stride2Mask& spread, Mask mask) {
  return kStride == 1 ? LoadMask(p, mask) : LoadStride2Mask(p, spread);
}

// A strip of a band.
struct StemStrip {
  int64_t item = 0;
  int64_t strip = 0;
  int64_t image;
  int64_t pair_begin, pair_end;
  bool row_before;  // the pool needs the output row before the first pair, which no one has
  int64_t first;    // row of all planes that the word rows begin with
  int64_t words;    // of a set
};

void FindStrip(const StemArgs& a, int64_t begin, StemStrip* s) {
  s->image = s->item / a.bands;
  const int64_t band = s->item % a.bands;
  s->pair_begin = band * StemPairs(a) / a.bands;
  s->pair_end = (band + 1) * StemPairs(a) / a.bands;
  s->row_before = a.pool && band != 0 && s->item == begin;
  const int64_t rows_begin = 2 * s->pair_begin - (s->row_before ? 1 : 0);
  const int64_t rows_end = 2 * s->pair_end < a.out_h ? 2 * s->pair_end : a.out_h;
  s->first = rows_begin * a.stride_h * a.in_channels;
  const int64_t rows = (rows_end - 1 - rows_begin) * a.stride_h + a.kernel_h;
  s->words = (rows * a.in_channels + 1) / 2 * a.kernel_w;
}

bool NextStrip(const StemArgs& a, int64_t begin, int64_t end, const StemStrip& now,
               StemStrip* next) {
  *next = now;
  if (++next->strip < StemStrips(a)) return true;
  next->strip = 0;
  if (++next->item == end) return false;
  FindStrip(a, begin, next);
  return true;
}

// Cuts a strip's inputs into pieces, a word row at a time.
template <int kStride>
class WordCutter {
 public:
  void Start(const StemArgs& a, const float* x, const StemStrip& s, char* to) {
    a_ = &a;
    column_ = s.strip * kStemLanes;
    x_ = x + s.image * a.x_image + column_ * kStride - a.pad_w;
    to_ = to;
    first_ = s.first;
    words_ = static_cast<int>(s.words);
    left_ = static_cast<int>(StemSets(a)) * words_;
    kw_ = 0;
    BeginSet(first_);
    for (int64_t kw = 0; kw < a.kernel_w; ++kw) {
      masks_[kw] = LanesInside<kStride>(a, column_, kw);
      spread_[kw] = SpreadMask(masks_[kw]);
    }
    check_ = Zero();
  }
  int left() const { return left_; }
  bool finite() const { return AllFinite(check_); }

  inline void Cut() {
    if (left_ == 0) return;
    --left_;
    const int kw = kw_;
    const Mask none = FirstN(0);
    Vec pair[2];
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) {
      const Mask mask = inside_[i] ? masks_[kw] : none;
      const Stride2Mask spread = inside_[i] ? spread_[kw] : SpreadMask(none);
      pair[i] = LoadWords<kStride>(rows_[i] + kw, spread, mask);
    }
    Vec check = check_;
    CutPieces<kWordPiece>(to_, pair[0], pair[1], FirstN(Vec::kLanes), &check);
    check_ = check;
    to_ += kWordRow;
    if (++kw_ < a_->kernel_w) return;
    kw_ = 0;
    if (left_ % words_ == 0) {
      EndSet();
    } else {
      NextRows();
    }
  }

 private:
  void NextRows() {
    rows_[0] = NextRow(&inside_[0]);
    rows_[1] = NextRow(&inside_[1]);
  }
  // The last output row's last tile reads on, times weights of 0.
  void EndSet() {
    auto* behind = reinterpret_cast<float*>(to_);
    for (int i = 0; i < kStemLanes * kPieces; ++i) Store(behind + i * Vec::kLanes, Zero());
    to_ += kStemLanes * kWordRow;
    BeginSet(first_ + 1);
  }
  void BeginSet(int64_t row) {
    in_row_ = row / a_->in_channels - a_->pad_h;
    channel_ = row % a_->in_channels;
    NextRows();
  }
  const float* NextRow(bool* inside) {
    const float* row = x_ + channel_ * a_->x_plane + in_row_ * a_->in_w;
    *inside = in_row_ >= 0 && in_row_ < a_->in_h;
    if (++channel_ == a_->in_channels) {
      channel_ = 0;
      ++in_row_;
    }
    return *inside ? row : x_;
  }

  const StemArgs* a_ = nullptr;
  const float* x_ = nullptr;  // the image's first row, where the strip's first window begins
  char* to_ = nullptr;
  int words_ = 0;  // of a set
  int left_ = 0;
  int kw_ = 0;
  int64_t first_ = 0;
  int64_t column_ = 0;
  int64_t in_row_ = 0, channel_ = 0;  // of the next row
  const float* rows_[2];
  bool inside_[2];
  Mask masks_[kStemMaxKernel];
  Stride2Mask spread_[kStemMaxKernel];
  Vec check_;
};

// Sums of up to 32 channels that have yet to get to Y: of a pair of output rows, or of the row
// before the first pair.
struct StemSums {
  const float* sums;
  int64_t image, strip, pair;
  int32_t channel;
  int rows;      // channels
  int next = 0;  // of them
  bool used = false;
  bool row_before;
};

// The memory of a thread.
struct StemMemory {
  char* words[2];
  char* w;
  float* sums[2];
  float* row;
  float* edge;
  int64_t edge_row;
};

class StemEnds {
 public:
  StemEnds(const StemArgs& a, float* y, const StemMemory& memory)
      : a_(a), y_(y), memory_(memory), row_floats_(StemPanels(a) * kStemLanes * kStemLanes) {
    const bool clip = a.act.fn == UnaryFn::kClip;
    low_ = clip ? a.act.alpha : a.act.fn == UnaryFn::kRelu ? 0.0f : -__builtin_inff();
    high_ = clip ? a.act.beta : __builtin_inff();
  }

  // Before the strips of an item whose first output rows are the plane's, or follow none.
  void BeginRows(const StemStrip& s) {
    if (!a_.pool || s.pair_begin != 0) return;
    float* row = memory_.row + s.strip * row_floats_;
    for (int64_t i = 0; i < row_floats_; i += Vec::kLanes) Store(row + i, Lowest());
  }
  void BeginEdge(const StemStrip& s, int64_t pair_begin) {
    pair_begin_ = pair_begin;
    if (!a_.pool || s.strip != 0) return;
    const int64_t floats = StemPanels(a_) * kStemLanes * memory_.edge_row;
    for (int64_t i = 0; i < floats; i += Vec::kLanes) StoreU(memory_.edge + i, Lowest());
  }

  StemSums pending;

  SRT_NOINLINE void End(int count) {
    const int end = pending.rows < pending.next + count ? pending.rows : pending.next + count;
    if (!a_.pool) {
      EndPair(end);
    } else if (pending.row_before) {
      for (int r = pending.next; r < end; ++r) {
        Store(Row(pending.channel + r), Load(pending.sums + r * kStemSumsRow));
      }
    } else {
      EndPooled(end);
    }
    pending.next = end;
  }
  void Finish() {
    if (pending.used && pending.next < pending.rows) End(pending.rows);
    pending.used = false;
  }

 private:
  static Vec Lowest() { return Set1(-__builtin_inff()); }
  float* Row(int64_t channel) const {
    return memory_.row + pending.strip * row_floats_ + channel * kStemLanes;
  }

  void EndPair(int end) {
    const StemSums& p = pending;
    const int64_t column = p.strip * kStemLanes;
    SpmmTile t = SpmmTile();
    t.last = true;
    t.act = a_.act;
    t.partial = a_.out_w - column < kStemLanes;
    t.tail = FirstN(static_cast<int>(a_.out_w - column));
    t.y_row = a_.y_plane;
    t.y = y_ + p.image * a_.y_image + 2 * p.pair * a_.out_w + column;
    SpmmTile below = t;
    below.y += a_.out_w;
    const bool both = 2 * p.pair + 1 < a_.out_h;
    for (int r = p.next; r < end; ++r) {
      const int channel = p.channel + r;
      const Vec bias = a_.bias == nullptr ? Zero() : Set1(a_.bias[channel]);
      const float* sums = p.sums + r * kStemSumsRow;
      Vec acc[1] = {Add(Load(sums), bias)};
      EndRow<1>(t, channel, acc);
      if (!both) continue;
      acc[0] = Add(Load(sums + kStemLanes), bias);
      EndRow<1>(below, channel, acc);
    }
  }

  // Bias and activation come last: they keep the order of numbers.
  void EndPooled(int end) {
    const StemSums& p = pending;
    const int64_t column = p.strip * kStemLanes;
    const Mask inside = FirstN(static_cast<int>(a_.out_w - column));
    const int64_t pooled = column / 2;
    const int64_t left = a_.pooled_w - pooled;
    constexpr int kMost = kStemLanes / 2;
    const Mask stored = FirstN(left < kMost ? static_cast<int>(left) : kMost);
    const Mask last = MaskFromBits(1u << (kStemLanes - 1));
    const bool both = 2 * p.pair + 1 < a_.out_h;
    const Vec low = Set1(low_);
    const Vec high = Set1(high_);
    float* y = y_ + p.image * a_.y_image + p.pair * a_.pooled_w + pooled;
    for (int r = p.next; r < end; ++r) {
      const int channel = p.channel + r;
      const float* sums = p.sums + r * kStemSumsRow;
      float* row = Row(channel);
      float* edge = memory_.edge + channel * memory_.edge_row + (p.pair - pair_begin_);
      const Vec below = both ? Load(sums + kStemLanes) : Lowest();
      Vec most = Max(Max(Load(row), Load(sums)), below);
      Store(row, below);
      most = Select(inside, most, Lowest());
      const Vec with_left = Max(most, ShiftUp(*edge, most));
      StoreMask(edge - (kStemLanes - 1), last, most);
      const Vec bias = a_.bias == nullptr ? Zero() : Set1(a_.bias[channel]);
      const Vec sum = Add(Max(Evens(with_left, with_left), Odds(most, most)), bias);
      StoreMask(y + channel * a_.y_plane, stored, Min(high, Max(low, sum)));
    }
  }

  const StemArgs& a_;
  float* const y_;
  const StemMemory& memory_;
  const int64_t row_floats_;  // of a strip
  int64_t pair_begin_ = 0;    // of the band
  float low_, high_;
};

// What the vector unit does while tile registers sum up.
template <int kStride>
struct StemChores {
  WordCutter<kStride> cutter;
  StemEnds ends;
  Pace cutter_pace, ends_pace;

  SRT_NOINLINE void Cut(int count) {
    for (; count > 0; --count) cutter.Cut();
  }
  inline void Do() {
    if (const int due = ends_pace.Due(); due > 0 && ends.pending.used) ends.End(due);
    if (const int due = cutter_pace.Due(); due > 0) Cut(due);
  }
};

// Sums of an output row's strip by multiply-adds of floats.
template <int kStride>
SRT_NOINLINE void PlainSums(const StemArgs& a, const float* x, const StemStrip& s, int64_t row,
                            int32_t channel, int rows, float* sums) {
  const int64_t column = s.strip * kStemLanes;
  x += s.image * a.x_image + column * kStride - a.pad_w;
  for (int r = 0; r < rows; ++r) {
    const float* w = a.weights + (channel + r) * a.in_channels * a.kernel_h * a.kernel_w;
    Vec acc = Zero();
    for (int32_t i = 0; i < a.in_channels; ++i) {
      for (int64_t kh = 0; kh < a.kernel_h; ++kh) {
        const int64_t in_row = row * a.stride_h + kh - a.pad_h;
        const bool inside = in_row >= 0 && in_row < a.in_h;
        const float* from = inside ? x + i * a.x_plane + in_row * a.in_w : x;
        for (int64_t kw = 0; kw < a.kernel_w; ++kw, ++w) {
          const Mask mask = inside ? LanesInside<kStride>(a, column, kw) : FirstN(0);
          acc = Fma(Set1(*w), LoadWords<kStride>(from + kw, SpreadMask(mask), mask), acc);
        }
      }
    }
    Store(sums + r * kStemSumsRow, acc);
  }
}

// Cuts all weights into pieces: [pairs of panels][steps][2], each a square per piece.
bool CutStemWeights(const StemArgs& a, char* to) {
  const int64_t steps = StemSteps(a);
  const float* from = a.packed;
  Vec check = Zero();
  for (int64_t panel = 0; panel < StemPanels(a); ++panel) {
    for (int64_t step = 0; step < steps; ++step) {
      char* at = to + ((panel / 2 * steps + step) * 2 + panel % 2) * kPiecesBytes;
      for (int r = 0; r < kStemPanelRows; ++r, from += 2 * kStemLanes) {
        StorePieces(at + 64 * r, LoadU(from), LoadU(from + kStemLanes), FirstN(Vec::kLanes),
                    &check);
      }
    }
  }
  return AllFinite(check);
}

// One pair of output rows, or one row, of a strip.
template <int kStride, bool kMoreRows, bool kMoreColumns>
SRT_INLINE void StemProduct(const char* w, int64_t steps, const char* x,
                            const char* more_x, StemChores<kStride>* chores) {
  ZeroSums<kMoreRows, kMoreColumns>();
  for (int64_t step = 0; step < steps; ++step) {
    AddProducts<kMoreRows, kMoreColumns, kWordPiece, kWordRow>(w, w + kPiecesBytes, x, more_x,
                                                               [&] { chores->Do(); });
    w += 2 * kPiecesBytes;
    x += kStemPanelRows * kWordRow;
    more_x += kStemPanelRows * kWordRow;
  }
}

template <int kStride>
class StemRun {
 public:
  StemRun(const StemArgs& a, const float* x, float* y, const StemMemory& memory)
      : a_(a),
        x_(x),
        memory_(memory),
        steps_(StemSteps(a)),
        panels_(StemPanels(a)),
        chores_{{}, {a, y, memory}, {}, {}} {}

  void Run(int64_t begin, int64_t end) {
    const bool w_finite = CutStemWeights(a_, memory_.w);
    StemStrip strips[2];
    strips[0].item = begin;
    FindStrip(a_, begin, &strips[0]);
    chores_.cutter.Start(a_, x_, strips[0], memory_.words[0]);
    chores_.Cut(chores_.cutter.left());
    int turn = 0;
    for (bool more = true; more; turn ^= 1) {
      const StemStrip& now = strips[turn];
      const bool finite = w_finite && chores_.cutter.finite();
      more = NextStrip(a_, begin, end, now, &strips[turn ^ 1]);
      if (more) chores_.cutter.Start(a_, x_, strips[turn ^ 1], memory_.words[turn ^ 1]);
      RunStrip(now, memory_.words[turn], finite);
      chores_.Cut(chores_.cutter.left());
    }
    chores_.ends.Finish();
  }

 private:
  void RunStrip(const StemStrip& s, const char* words, bool finite) {
    const int64_t units = (panels_ + 1) / 2;
    const int64_t pairs = s.pair_end - s.pair_begin + (s.row_before ? 1 : 0);
    chores_.cutter_pace.Set(chores_.cutter.left(),
                            static_cast<int>(pairs * units * steps_ * kBetween));
    chores_.ends_pace.Set(kStemUnitRows, static_cast<int>(steps_ * kBetween));
    // What is pending is of the strip before, to the left of this one or in another band.
    chores_.ends.Finish();
    chores_.ends.BeginRows(s);
    chores_.ends.BeginEdge(s, s.pair_begin);
    BeforeTileLoads();
    for (int64_t unit = 0; unit < units; ++unit) {
      const auto channel = static_cast<int32_t>(unit * kStemUnitRows);
      const int rows =
          a_.channels - channel < kStemUnitRows ? a_.channels - channel : kStemUnitRows;
      const bool more_rows = 2 * unit + 1 < panels_;
      if (s.row_before) RunRows(s, words, 2 * s.pair_begin - 1, true, channel, rows, more_rows,
                                finite);
      for (int64_t pair = s.pair_begin; pair < s.pair_end; ++pair) {
        RunRows(s, words, 2 * pair, false, channel, rows, more_rows, finite);
      }
    }
  }

  const char* WordsOf(const StemStrip& s, const char* words, int64_t row) const {
    const int64_t from = row * a_.stride_h * a_.in_channels - s.first;
    return words + (from % 2 * (s.words + kStemLanes) + from / 2 * a_.kernel_w) * kWordRow;
  }

  // The output row, and with it the one below unless it is the last or the row before all pairs.
  void RunRows(const StemStrip& s, const char* words, int64_t row, bool row_before,
                          int32_t channel, int rows, bool more_rows, bool finite) {
    const bool both = !row_before && row + 1 < a_.out_h;
    float* sums = memory_.sums[turn_];
    turn_ ^= 1;
    if (!finite) {
      PlainSums<kStride>(a_, x_, s, row, channel, rows, sums);
      if (both) PlainSums<kStride>(a_, x_, s, row + 1, channel, rows, sums + kStemLanes);
    } else {
      const char* x = WordsOf(s, words, row);
      const char* more_x = both ? WordsOf(s, words, row + 1) : x;
      const char* w = memory_.w + channel / kStemPanelRows * steps_ * kPiecesBytes;
      if (both) {
        RunTwo(w, x, more_x, more_rows, sums);
      } else {
        RunOne(w, x, more_rows, sums);
      }
    }
    chores_.ends.Finish();
    StemSums* pending = &chores_.ends.pending;
    pending->sums = sums;
    pending->image = s.image;
    pending->strip = s.strip;
    pending->pair = row / 2;
    pending->channel = channel;
    pending->rows = rows;
    pending->next = 0;
    pending->used = true;
    pending->row_before = row_before;
  }

  SRT_NOINLINE void RunTwo(const char* w, const char* x, const char* more_x, bool more_rows,
                           float* sums) {
    if (more_rows) {
      StemProduct<kStride, true, true>(w, steps_, x, more_x, &chores_);
      StoreSums<true, true>(sums, kStemSumsRowBytes);
    } else {
      StemProduct<kStride, false, true>(w, steps_, x, more_x, &chores_);
      StoreSums<false, true>(sums, kStemSumsRowBytes);
    }
  }
  SRT_NOINLINE void RunOne(const char* w, const char* x, bool more_rows, float* sums) {
    if (more_rows) {
      StemProduct<kStride, true, false>(w, steps_, x, x, &chores_);
      StoreSums<true, false>(sums, kStemSumsRowBytes);
    } else {
      StemProduct<kStride, false, false>(w, steps_, x, x, &chores_);
      StoreSums<false, false>(sums, kStemSumsRowBytes);
    }
  }

  const StemArgs& a_;
  const float* const x_;
  const StemMemory& memory_;
  const int64_t steps_;
  const int64_t panels_;
  StemChores<kStride> chores_;
  int turn_ = 0;
};

}  // namespace

void Stem(const void* args, void* const* io, int64_t begin, int64_t end, void* scratch);
void Stem(const void* args, void* const* io, int64_t begin, int64_t end, void* scratch) {
  if (begin == end) return;
  const StemArgs& a = *static_cast<const StemArgs*>(args);
  const DenormalsAreZero guard;
  const TileRegisters registers;
  const StemFloats sizes = StemFloatsOf(a);
  StemMemory memory;
  auto* at = static_cast<float*>(scratch);
  const auto take = [&at](int64_t floats) {
    float* taken = at;
    at += floats;
    return taken;
  };
  for (char*& words : memory.words) words = reinterpret_cast<char*>(take(sizes.words));
  memory.w = reinterpret_cast<char*>(take(sizes.w));
  for (float*& sums : memory.sums) sums = take(sizes.sums);
  memory.row = take(sizes.row);
  memory.edge = take(sizes.edge);
  memory.edge_row = (StemPairs(a) + a.bands - 1) / a.bands;
  const auto* x = static_cast<const float*>(io[0]);
  auto* y = static_cast<float*>(io[1]);
  if (a.stride_w == 1) {
    StemRun<1>(a, x, y, memory).Run(begin, end);
  } else {
    StemRun<2>(a, x, y, memory).Run(begin, end);
  }
}

}  // namespace SRT_ISA
}  // namespace sparsert
