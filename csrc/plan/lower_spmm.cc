// The choice among the spmm formats for one layer, and its step.
#include "plan/lower_spmm.h"

#include <algorithm>
#include <cstdio>
#include <cstring>

#include "plan/stacks.h"

namespace sparsert {
namespace {

bool IsStacked(const SpmmChoice& choice) { return kHasStacks && choice.stack_vecs != 0; }

// Bytes from which on the planes of all output rows, or a layer's weights, count as far from L1.
constexpr int64_t kFarBytes = 384 * 1024;

// Packed weights that several tiles read: about what L2 keeps beside their columns.
constexpr int64_t kSplitBytes = 768 * 1024;

// Rows of a panel of csr2 or csr4: as many as find good partners, but, when threads share a layer's
// rows, two panels for each thread.
int32_t PairRows(SpmmFormat format, int64_t rows, int64_t threads, bool shared) {
  constexpr int64_t kMinRows = 64;
  const bool fours = format == SpmmFormat::kCsr4;
  const int64_t most = fours ? kCsr4PanelRows : kCsr2PanelRows;
  if (!shared && !fours) return static_cast<int32_t>(most);
  // Panels of about equal size.
  int64_t panels = (rows + most - 1) / most;
  if (shared) panels = std::max(panels, 2 * threads);
  const int64_t share = (rows + panels - 1) / panels;
  return static_cast<int32_t>(std::max(kMinRows, std::min(most, (share + 3) / 4 * 4)));
}

// Cycles per vector that the feed copies: masked loads, two loads and a shuffle, or several of
// them.
double FeedCost(const Window& w, bool transposed, bool phased) {
  if (transposed) return 12.0;
  if (w.stride[1] == 1 && w.in[1] == w.out[1]) return 1.5;
  if (phased && (w.in[1] + w.stride[1] - 1) / w.stride[1] == w.out[1]) return 1.5;
  return w.out[1] % 16 == 0 ? 3.0 : 6.0;
}

}  // namespace

void ExplainForced(PlanBuilder* b) {
  NodePlan& info = b->info();
  const int format = b->options.format;
  if (format == kAnyFormat || strcmp(info.compute_format, FormatName(format)) != 0) return;
  const double total = static_cast<double>(info.weights);
  const double zeros = total > 0 ? 1.0 - static_cast<double>(info.nonzeros) / total : 0.0;
  snprintf(info.reason, sizeof(info.reason), "forced by SPARSERT_FORMAT at %.1f %% zeros",
           100.0 * zeros);
}

Status SpmmLayer::NewArgs(const SpmmChoice& choice, SpmmArgs** args, const void** whole) {
  if (o_.quantised == nullptr) {
    SRT_RETURN_IF_ERROR(b_->NewArgs(args));
    *whole = *args;
    return Status::Ok();
  }
  QspmmArgs* bytes = nullptr;
  SRT_RETURN_IF_ERROR(b_->NewArgs(&bytes));
  *bytes = *o_.quantised;
  const int64_t rows = stats_.rows * stats_.groups;
  auto* start = b_->plan->memory.Allocate<int32_t>(static_cast<size_t>(rows));
  if (start == nullptr) return Status::OutOfMemory("row sums", rows * sizeof(int32_t));
  for (int64_t r = 0; r < rows; ++r) {
    start[r] =
        static_cast<int32_t>(o_.row_start[r] + choice.kernel.byte_offset * o_.row_weights[r]);
  }
  bytes->start = start;
  if (HalvesVectors(b_->options.cpu)) bytes->half_tails = true;
  *args = &bytes->product;
  *whole = bytes;
  return Status::Ok();
}

size_t SpmmLayer::ScratchOf(const SpmmChoice& choice, const void* whole) const {
  if (o_.quantised == nullptr) {
    const auto& args = *static_cast<const SpmmArgs*>(whole);
    return SpmmHasSquares(choice.kernel.format)
               ? SpmmSquareScratch(args, choice.block_depth)
               : SpmmScratch(args, choice.kernel.lanes, choice.block_depth);
  }
  return QspmmScratch(*static_cast<const QspmmArgs*>(whole), choice.kernel, choice.block_depth);
}

void SpmmLayer::SetKey(const SpmmChoice& choice, PackKey* key) const {
  const bool stacked = IsStacked(choice);
  key->format = static_cast<int>(choice.kernel.format);
  key->direct = o_.may_be_direct || stacked;
  key->block_depth = choice.block_depth;
  if (!stacked) return;
  key->stack_width = static_cast<int32_t>(o_.window.kernel[1]);
  key->stack_rows = StackRows(choice.tiling.tile_vecs, static_cast<int32_t>(o_.window.kernel[0]));
}

Status SpmmLayer::FillArgs(const SpmmChoice& choice, SpmmArgs** out, const void** whole,
                           PackKey* key) {
  PlanBuilder* const b = b_;
  const SpmmOperands& o = o_;
  const bool direct = o.may_be_direct;
  *key = o.key;
  SetKey(choice, key);

  // Tiles are shared first; rows are split when there are too few of them, or planes too small. A
  // split of a tap-fed layer feeds the tile anew, one of a direct layer costs little and evens out
  // the threads.
  const int64_t threads = b->options.threads;
  const int64_t images = o.batch * o.key.groups;
  // Squares of bytes that come from afar are worth reading once for all columns, as long as those
  // stay in L2.
  const int64_t columns_bytes = static_cast<int64_t>(choice.tiling.vecs) * choice.kernel.lanes *
                                choice.block_depth * static_cast<int64_t>(sizeof(float));
  const bool all_tiles = o.quantised != nullptr && SpmmHasSquares(choice.kernel.format) &&
                         (threads == 1 || direct) && columns_bytes <= b->options.cpu.l2_bytes / 4;
  const int64_t parallel = images * (all_tiles ? 1 : choice.tiling.tiles);
  const SpmmFormat format = choice.kernel.format;
  const int64_t shares = !direct ? 1 : format == SpmmFormat::kAny4 ? 2 : 8;  // turns X for each
  const int64_t wanted = threads == 1 ? 1 : threads * shares;
  const bool by_rows =
      threads > 1 && direct && !o.may_tile && images == 1 && SharedByPlanes(o.columns);
  if (format == SpmmFormat::kCsr2 || format == SpmmFormat::kCsr4) {
    const bool is_split = by_rows || parallel < wanted;
    const bool stores_rows = o.quantised != nullptr && !(kHasAny4 && format == SpmmFormat::kCsr4);
    key->pair_rows =
        stores_rows ? kQspmmCsr2Rows : PairRows(format, stats_.rows, threads, is_split);
  }
  const PackedSpmm* packed = nullptr;
  SRT_RETURN_IF_ERROR(b->weights->Spmm(*key, &packed));

  SpmmArgs* a = nullptr;
  SRT_RETURN_IF_ERROR(NewArgs(choice, &a, whole));
  a->batch = static_cast<int32_t>(o.batch);
  a->groups = o.key.groups;
  a->tiles = choice.tiling.tiles;
  a->vecs = choice.tiling.vecs;
  a->tile_vecs = choice.tiling.tile_vecs;
  a->columns = o.columns;
  a->direct = direct;
  a->x_in_tiles = o.x_in_tiles;
  a->r_in_tiles = o.r_in_tiles;
  a->y_in_tiles = y_in_tiles_;
  a->by_blocks = all_tiles;
  if (IsStacked(choice)) {
    a->stack = MakeStack(o.window, choice.stack_vecs, choice.block_depth / o.key.taps);
  } else if (!direct) {
    SRT_RETURN_IF_ERROR(
        b->Taps(o.window, o.key.by_transposed_taps(), o.phased, choice.tiling, &a->taps));
  }
  a->x_image = o.x_image;
  a->x_group = o.x_group;
  a->x_row = o.x_row;
  a->r_image = o.r_image;
  a->r_group = o.r_group;
  a->r_row = o.r_row;
  a->y_image = o.y_image;
  a->y_group = o.y_group;
  a->y_row = o.y_row;
  a->fetch_ahead =
      o.y_row * packed->groups[0].rows * static_cast<int64_t>(sizeof(float)) > kFarBytes;
  // Formats whose rows share every weight's column read them faster than caches send them unasked;
  // those with single columns wait for X instead.
  a->fetch_weights = SpmmIsPanel(choice.kernel.format) &&
                     static_cast<int64_t>(packed->values.size_bytes()) > kFarBytes;
  a->weights = packed->groups.data();
  a->fetch_x = (direct || IsStacked(choice)) &&
               o.x_row * (stats_.depth / o.key.taps) * static_cast<int64_t>(sizeof(float)) >
                   b->options.cpu.l2_bytes / 2;
  // Where a cycle starts one multiply-add, half a vector for each row takes a ninth of a tile
  // of 49.
  if (kHasStacks) {
    a->join_ends = b->options.cpu.halves_vectors;
    a->weights_by_fours = b->options.cpu.halves_vectors;
  }
  a->act = o.act;
  a->bias = o.bias_values;
  if (o.bias != kNoTensor) SRT_RETURN_IF_ERROR(b->ConstantFloats(o.bias, &a->bias));

  const int32_t panels = packed->groups[0].panels;
  int64_t splits = (wanted + parallel - 1) / std::max<int64_t>(1, parallel);
  if (by_rows && panels >= threads) {
    splits = std::max(splits, threads);
    a->by_rows = true;
  }
  // Weights that exceed L2 are read once, whatever the number of tiles: a block of them at a time,
  // or those of a few rows.
  const int64_t blocks = packed->groups[0].blocks;
  const auto weight_bytes = static_cast<int64_t>(packed->bytes());
  const int64_t share = b->options.cpu.l2_bytes / 4;
  if (direct && SpmmItemTiles(*a) > 1 && weight_bytes > kSplitBytes &&
      (threads == 1 || a->by_rows)) {
    a->by_rows = true;
    a->by_blocks = blocks > 1 && o.quantised == nullptr && !SpmmHasSquares(choice.kernel.format);
    splits = std::max(
        splits, a->by_blocks ? weight_bytes / blocks / share + 1 : weight_bytes / kSplitBytes + 1);
  }
  // So do the partial sums of a split.
  if (direct && blocks > 1) {
    const int64_t width = static_cast<int64_t>(a->by_blocks ? a->vecs : a->tile_vecs) *
                          choice.kernel.lanes * static_cast<int64_t>(sizeof(float));
    splits = std::max(splits, (packed->groups[0].rows * width + share - 1) / share);
  }
  if (o.split_bytes != 0) {
    splits = std::max(splits, static_cast<int64_t>(packed->bytes() / o.split_bytes) + 1);
  }
  a->splits = static_cast<int32_t>(std::max<int64_t>(1, std::min<int64_t>(splits, panels)));
  auto* bounds =
      b->plan->memory.Allocate<int32_t>(static_cast<size_t>(a->groups) * (a->splits + 1));
  if (bounds == nullptr) return Status::OutOfMemory("row splits", a->splits * sizeof(int32_t));
  for (int32_t g = 0; g < a->groups; ++g) {
    SplitPanels(packed->groups[g], choice.kernel.format, a->splits, bounds + g * (a->splits + 1));
  }
  a->split_panels = bounds;
  *out = a;
  return Status::Ok();
}

// What plans for other shapes keep in memory serves this one too, unless another format promises
// much more; so a model of many shapes is not packed for each of them.
void SpmmLayer::ShareKept() {
  constexpr double kWorthPacking = 1.2;
  bool is_kept[kMaxSpmmChoices] = {};
  double kept_ns = 0.0;
  for (int n = 0; n < count_; ++n) {
    PackKey key = o_.key;
    SetKey(choices_[n], &key);
    const int32_t depth = b_->weights->KeptDepth(key);
    if (depth == 0) continue;
    choices_[n].block_depth = depth;
    is_kept[n] = true;
    if (kept_ns == 0.0) kept_ns = choices_[n].predicted_ns;  // best first
  }
  if (kept_ns == 0.0 || b_->options.tune == Tune::kFull) return;
  int left = 0;
  for (int n = 0; n < count_; ++n) {
    if (!is_kept[n] && choices_[n].predicted_ns * kWorthPacking > kept_ns) continue;
    choices_[left++] = choices_[n];
  }
  count_ = left;
}

bool SpmmLayer::MayStack() const {
  const Window& w = o_.window;
  return !o_.may_be_direct && !o_.phased && !o_.key.transposed && o_.quantised == nullptr &&
         w.stride[0] == 1 && w.stride[1] == 1 && w.dilation[0] == 1 && w.dilation[1] == 1 &&
         o_.key.taps == w.kernel[0] * w.kernel[1] && o_.columns == w.out[0] * w.out[1];
}

Status SpmmLayer::Rank() {
  SRT_RETURN_IF_ERROR(b_->weights->Stats(o_.key, &stats_));
  SpmmProblem problem;
  problem.cpu = b_->options.cpu;
  SpmmKernel dense;
  if (SelectSpmm(SpmmFormat::kDense, b_->options.isa, &dense) && o_.columns <= dense.lanes) {
    // Rows of one vector are too few sums to hide the latency of a multiply-add.
    problem.cpu.fma_per_cycle = std::min(1.0, problem.cpu.fma_per_cycle);
  }
  problem.columns = o_.columns;
  problem.batch = o_.batch;
  problem.threads = b_->options.threads;
  problem.direct = o_.may_be_direct;
  problem.may_tile = o_.may_tile;
  problem.tiling = o_.tiling;
  problem.needs_tiling = o_.x_in_tiles || o_.r_in_tiles;
  problem.feed_cost = FeedCost(o_.window, o_.key.by_transposed_taps(), o_.phased);
  problem.bytes = o_.quantised != nullptr;
  if (kHasStacks && MayStack()) problem.window = &o_.window;
  const int forced = ForcedSpmm(b_->options.format);
  count_ = RankSpmm(stats_, problem, b_->options.isa, forced, choices_);
  // Of bytes there are fewer formats.
  if (count_ == 0) count_ = RankSpmm(stats_, problem, b_->options.isa, kAnyFormat, choices_);
  ShareKept();
  return Status::Ok();
}

Candidate SpmmLayer::CandidateOf(int n) const {
  const SpmmChoice& choice = choices_[n];
  Candidate c;
  c.format = SpmmFormatName(choice.kernel.format);
  c.kernel = choice.kernel.kernel.name;
  c.predicted_ns = choice.predicted_ns;
  c.tiles = choice.tiling.tiles;
  c.tile_columns = choice.tiling.tile_vecs * choice.tiling.lanes;
  c.block_depth = choice.block_depth;
  c.stacked = IsStacked(choice);
  return c;
}

double SpmmLayer::StoredOf(int n) const {
  if (!SpmmIsDense(choices_[n].kernel.format)) return static_cast<double>(stats_.nnz);
  return static_cast<double>(stats_.rows) * stats_.groups * static_cast<double>(stats_.depth);
}

Status SpmmLayer::Enter(int first_number, double extra_ns, Contest* contest) {
  SRT_RETURN_IF_ERROR(Rank());
  for (int n = 0; n < count_; ++n) {
    Candidate c = CandidateOf(n);
    c.predicted_ns += extra_ns;
    contest->Add(c, first_number + n, StoredOf(n));
  }
  return Status::Ok();
}

Status SpmmLayer::Prepare(int n, TrialBuffer x, TrialBuffer r, TrialBuffer y, Trial::Part* part,
                          PackKey* key) {
  const SpmmChoice& choice = choices_[n];
  SpmmArgs* args = nullptr;
  SRT_RETURN_IF_ERROR(FillArgs(choice, &args, &part->args, key));
  part->kernel = choice.kernel.kernel;
  part->io[0] = x;
  part->io[1] = o_.r_row != 0 ? r : kNoBuffer;
  part->io[2] = y;
  part->io_count = 3;
  part->items = SpmmItems(*args);
  part->scratch_bytes = ScratchOf(choice, part->args);
  return Status::Ok();
}

bool SpmmLayer::HasTiles(int n) const {
  return !IsStacked(choices_[n]) && !SpmmHasSquares(choices_[n].kernel.format);
}

Status SpmmLayer::Lower(int n) {
  const SpmmChoice& choice = choices_[n];
  y_in_tiles_ = o_.y_in_tiles && HasTiles(n);
  SpmmArgs* args = nullptr;
  const void* whole = nullptr;
  PackKey key;
  SRT_RETURN_IF_ERROR(FillArgs(choice, &args, &whole, &key));
  const PackedSpmm* packed = nullptr;
  SRT_RETURN_IF_ERROR(b_->weights->Spmm(key, &packed));
  b_->weights->Keep(key);
  b_->info().packed_bytes = packed->bytes();
  ExplainForced(b_);
  if (IsStacked(choice)) {
    NodePlan& info = b_->info();
    const size_t said = strlen(info.reason);
    snprintf(info.reason + said, sizeof(info.reason) - said, "; in stacks of %d rows",
             choice.tiling.tile_vecs);
  }
  IoRef rows;
  if (o_.params.kind != IoRef::kNone) {
    // Trials take the zero points and scales of the plan: they cost the same.
    QspmmArgs* at_run = nullptr;
    SRT_RETURN_IF_ERROR(b_->NewArgs(&at_run));
    *at_run = *static_cast<const QspmmArgs*>(whole);
    at_run->at_run = true;
    whole = at_run;
    SRT_RETURN_IF_ERROR(
        AddRowScales(b_, o_, stats_.rows * stats_.groups, choice.kernel.byte_offset, &rows));
  }
  const IoRef io[] = {o_.x, o_.r, o_.y, rows};
  SRT_RETURN_IF_ERROR(b_->AddStep(choice.kernel.kernel, whole, {io, 4}, SpmmItems(*args),
                                  ScratchOf(choice, whole), choice.predicted_ns));
  if (y_in_tiles_) b_->TileOutput();
  if (o_.quantised != nullptr) return Status::Ok();
  PlaneStep step;
  step.squares = SpmmHasSquares(choice.kernel.format);
  step.product = args;
  step.lanes = choice.kernel.lanes;
  step.height = o_.window.out[0];
  step.width = o_.window.out[1];
  return b_->NotePlaneStep(step);
}

size_t SpmmLayer::x_floats() const { return static_cast<size_t>(o_.batch * o_.x_image); }
size_t SpmmLayer::r_floats() const {
  return o_.r_row == 0 ? 0 : static_cast<size_t>(o_.batch * o_.r_image);
}
size_t SpmmLayer::y_floats() const {
  return static_cast<size_t>(
      std::max(o_.batch * o_.y_image, stats_.groups * stats_.rows * o_.y_row));
}

namespace {

Status PrepareSpmm(void* layer, int number, Trial* trial) {
  trial->part_count = 1;
  return static_cast<SpmmLayer*>(layer)->Prepare(number, kTrialX, kTrialR, kTrialY,
                                                 &trial->parts[0], &trial->keys[0]);
}

}  // namespace

Status AddRowScales(PlanBuilder* b, const SpmmOperands& o, int64_t count, int byte_offset,
                    IoRef* rows) {
  QspmmRowScalesArgs* args = nullptr;
  SRT_RETURN_IF_ERROR(b->NewArgs(&args));
  auto* weights = b->plan->memory.Allocate<int32_t>(static_cast<size_t>(count));
  if (weights == nullptr) return Status::OutOfMemory("row sums", count * sizeof(int32_t));
  for (int64_t r = 0; r < count; ++r) weights[r] = static_cast<int32_t>(o.row_weights[r]);
  args->rows = count;
  args->weights = weights;
  args->row_scale = o.quantised->scale;
  args->byte_offset = byte_offset;
  const auto bytes = static_cast<size_t>(QspmmRowsFloats(count)) * sizeof(float);
  SRT_RETURN_IF_ERROR(b->Temporary(bytes, rows));
  const IoRef io[] = {o.params, *rows};
  return b->AddStep(QspmmRowScales(), args, {io, 2}, 1, 0, static_cast<double>(count));
}

Status LowerSpmm(PlanBuilder* b, const SpmmOperands& o) {
  SpmmLayer layer(b, o);
  Contest contest;
  SRT_RETURN_IF_ERROR(layer.Enter(0, 0.0, &contest));
  if (contest.count == 0) return b->Fail(StatusCode::kUnsupported, "no spmm kernel in this build");
  contest.buffer_floats[kTrialX] = layer.x_floats();
  contest.buffer_floats[kTrialR] = layer.r_floats();
  contest.buffer_floats[kTrialY] = layer.y_floats();
  contest.bytes = o.quantised != nullptr;
  contest.prepare = &PrepareSpmm;
  contest.layer = &layer;
  int winner = 0;
  SRT_RETURN_IF_ERROR(ChooseCandidate(b, &contest, &winner));
  return layer.Lower(winner);
}

}  // namespace sparsert
