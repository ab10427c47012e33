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

// The inputs of 16 output columns, of those lanes that lie inside.
template <int kStride>
struct StemInputs;
template <>
struct StemInputs<1> {
  using Inside = Mask;
  static Inside From(Mask mask) { return mask; }
  static Vec Load(const float* p, const Inside& inside) { return LoadMask(p, inside); }
};
template <>
struct StemInputs<2> {
  using Inside = Stride2Mask;
  static Inside From(Mask mask) { return SpreadMask(mask); }
  static Vec Load(const float* p, const Inside& inside) { return LoadStride2Mask(p, inside); }
};

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
  using Inputs = StemInputs<kStride>;
  using Inside = typename Inputs::Inside;

  void Start(const StemArgs& a, const float* x, const StemStrip& s, char* to) {
    a_ = &a;
    const int64_t column = s.strip * kStemLanes;
    x_ = x + s.image * a.x_image + column * kStride - a.pad_w;
    to_ = to;
    first_ = s.first;
    words_ = static_cast<int>(s.words);
    left_ = static_cast<int>(StemSets(a)) * words_;
    kw_ = 0;
    for (int64_t kw = 0; kw < a.kernel_w; ++kw) {
      masks_[1][kw] = Inputs::From(LanesInside<kStride>(a, column, kw));
      masks_[0][kw] = Inputs::From(FirstN(0));
    }
    check_ = Zero();
    BeginSet(first_);
    BeginRows();
  }
  int left() const { return left_; }
  bool finite() const { return AllFinite(check_); }

  inline void Cut() {
    if (left_ == 0) return;
    const int kw = kw_;
    Vec check = check_;
    CutPieces<kWordPiece>(to_, Inputs::Load(rows_[0] + kw, inside_[0][kw]),
                          Inputs::Load(rows_[1] + kw, inside_[1][kw]), FirstN(Vec::kLanes), &check);
    check_ = check;
    to_ += kWordRow;
    --left_;
    if (++kw_ == a_->kernel_w) EndRows();
  }

 private:
  SRT_NOINLINE void EndRows() {
    kw_ = 0;
    if (left_ % words_ == 0) EndSet();
    BeginRows();
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
  }
  void BeginRows() {
    for (int i = 0; i < 2; ++i) {
      rows_[i] = x_ + channel_ * a_->x_plane + in_row_ * a_->in_w;
      inside_[i] = masks_[in_row_ >= 0 && in_row_ < a_->in_h];
      if (++channel_ < a_->in_channels) continue;
      channel_ = 0;
      ++in_row_;
    }
  }

  const StemArgs* a_ = nullptr;
  const float* x_ = nullptr;  // the image's first row, where the strip's first window begins
  char* to_ = nullptr;
  int64_t first_ = 0;
  int words_ = 1;  // of a set
  int left_ = 0;
  int kw_ = 0;
  const float* rows_[2];
  const Inside* inside_[2];
  int64_t in_row_ = 0, channel_ = 0;  // of the next row
  Inside masks_[2][kStemMaxKernel];   // of a row that lies in the padding, and of others
  Vec check_;
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

// Brings sums of up to 32 channels to Y: those of a pair of output rows, or of the row before the
// first pair, which the pool keeps.
class StemEnds {
 public:
  StemEnds(const StemArgs& a, float* y, const StemMemory& memory)
      : a_(a), out_(y), memory_(memory), row_floats_(StemPanels(a) * kStemLanes * kStemLanes) {
    const bool clip = a.act.fn == UnaryFn::kClip;
    low_ = clip ? a.act.alpha : a.act.fn == UnaryFn::kRelu ? 0.0f : -__builtin_inff();
    high_ = clip ? a.act.beta : __builtin_inff();
    tile_ = SpmmTile();
    tile_.last = true;
    tile_.act = a.act;
    tile_.y_row = a.y_plane;
  }

  // What lies outside of the plane is below everything.
  void BeginStrip(const StemStrip& s) {
    if (!a_.pool) return;
    if (s.pair_begin == 0) FillLowest(memory_.row + s.strip * row_floats_, row_floats_);
    if (s.strip == 0) FillLowest(memory_.edge, StemPanels(a_) * kStemLanes * memory_.edge_row);
  }

  void Begin(const StemStrip& s, int64_t row, bool row_before, int32_t channel, int rows,
             const float* sums) {
    const int64_t column = s.strip * kStemLanes;
    const int64_t pair = row / 2;
    next_ = 0;
    rows_ = rows;
    row_before_ = row_before;
    sums_ = sums;
    both_ = row + 1 < a_.out_h;
    bias_ = a_.bias == nullptr ? &kNoBias : a_.bias + channel;
    bias_step_ = a_.bias == nullptr ? 0 : 1;
    inside_ = FirstN(static_cast<int>(a_.out_w - column));
    float* y = out_ + s.image * a_.y_image + channel * a_.y_plane;
    if (!a_.pool) {
      tile_.partial = a_.out_w - column < kStemLanes;
      tile_.tail = inside_;
      tile_.y = y + row * a_.out_w + column;
      return;
    }
    constexpr int kMost = kStemLanes / 2;
    const int64_t left = a_.pooled_w - column / 2;
    stored_ = FirstN(left < kMost ? static_cast<int>(left) : kMost);
    y_ = y + pair * a_.pooled_w + column / 2;
    row_ = memory_.row + s.strip * row_floats_ + channel * kStemLanes;
    edge_ = memory_.edge + channel * memory_.edge_row + (pair - s.pair_begin);
  }

  // Of the next channels.
  SRT_NOINLINE void End(int count) {
    int r = next_;
    const int end = rows_ - r < count ? rows_ : r + count;
    next_ = end;
    if (!a_.pool) {
      for (; r < end; ++r) EndPair(r);
    } else if (row_before_) {
      for (; r < end; ++r) Store(row_ + r * kStemLanes, Load(sums_ + r * kStemSumsRow));
    } else {
      for (; r < end; ++r) EndPooled(r);
    }
  }
  void Finish() { End(rows_); }

 private:
  static constexpr float kNoBias = 0.0f;

  static Vec Lowest() { return Set1(-__builtin_inff()); }
  static void FillLowest(float* to, int64_t floats) {
    for (int64_t i = 0; i < floats; i += Vec::kLanes) Store(to + i, Lowest());
  }

  inline void EndPair(int r) const {
    const Vec bias = Set1(bias_[r * bias_step_]);
    const float* sums = sums_ + r * kStemSumsRow;
    Vec acc[1] = {Add(Load(sums), bias)};
    EndRow<1>(tile_, r, acc);
    if (!both_) return;
    acc[0] = Add(Load(sums + kStemLanes), bias);
    SpmmTile below = tile_;
    below.y += a_.out_w;
    EndRow<1>(below, r, acc);
  }

  // Bias and activation come last: they keep the order of numbers.
  inline void EndPooled(int r) const {
    const Mask last = MaskFromBits(1u << (kStemLanes - 1));
    const float* sums = sums_ + r * kStemSumsRow;
    float* row = row_ + r * kStemLanes;
    float* edge = edge_ + r * memory_.edge_row;
    const Vec below = both_ ? Load(sums + kStemLanes) : Lowest();
    Vec most = Max(Max(Load(row), Load(sums)), below);
    Store(row, below);
    most = Select(inside_, most, Lowest());
    const Vec with_left = Max(most, ShiftUp(*edge, most));
    StoreMask(edge - (kStemLanes - 1), last, most);
    const Vec sum =
        Add(Max(Evens(with_left, with_left), Odds(most, most)), Set1(bias_[r * bias_step_]));
    StoreMask(y_ + r * a_.y_plane, stored_, Min(Set1(high_), Max(Set1(low_), sum)));
  }

  const StemArgs& a_;
  float* const out_;
  const StemMemory& memory_;
  const int64_t row_floats_;  // of a strip
  float low_, high_;
  // Of what is being ended.
  int next_ = 0, rows_ = 0;  // channels
  bool row_before_ = false;
  bool both_ = false;  // output rows exist
  const float* sums_ = nullptr;
  const float* bias_ = nullptr;
  int bias_step_ = 0;
  Mask inside_, stored_;
  SpmmTile tile_;
  float* y_ = nullptr;
  float* row_ = nullptr;
  float* edge_ = nullptr;
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
    if (const int due = ends_pace.Due(); due > 0) ends.End(due);
    if (const int due = cutter_pace.Due(); due > 0) Cut(due);
  }
};

// Sums of an output row's strip by multiply-adds of floats.
template <int kStride>
SRT_NOINLINE void PlainSums(const StemArgs& a, const float* x, const StemStrip& s, int64_t row,
                            int32_t channel, int rows, float* sums) {
  using Inputs = StemInputs<kStride>;
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
          acc = Fma(Set1(*w), Inputs::Load(from + kw, Inputs::From(mask)), acc);
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
SRT_INLINE void StemProduct(const char* w, int64_t steps, const char* x, const char* more_x,
                            StemChores<kStride>* chores) {
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
    chores_.ends.BeginStrip(s);
    BeforeTileLoads();
    for (int64_t unit = 0; unit < units; ++unit) {
      const auto channel = static_cast<int32_t>(unit * kStemUnitRows);
      const int rows =
          a_.channels - channel < kStemUnitRows ? a_.channels - channel : kStemUnitRows;
      const bool more_rows = 2 * unit + 1 < panels_;
      if (s.row_before)
        RunRows(s, words, 2 * s.pair_begin - 1, true, channel, rows, more_rows, finite);
      for (int64_t pair = s.pair_begin; pair < s.pair_end; ++pair) {
        RunRows(s, words, 2 * pair, false, channel, rows, more_rows, finite);
      }
    }
  }

  const char* WordsOf(const StemStrip& s, const char* words, int64_t row) const {
    const int64_t from = row * a_.stride_h * a_.in_channels - s.first;
    const int64_t set = s.words + kStemLanes;
    return words + (from % 2 * set + from / 2 * a_.kernel_w) * kWordRow;
  }

  // The output row, and with it the one below unless it is the last or the row before all pairs.
  void RunRows(const StemStrip& s, const char* words, int64_t row, bool row_before, int32_t channel,
               int rows, bool more_rows, bool finite) {
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
    chores_.ends.Begin(s, row, row_before, channel, rows, sums);
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
