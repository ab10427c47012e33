// The choice among the spmm formats for one layer, by cost model or by measurement.
#include "plan/lower_spmm.h"

#include <algorithm>
#include <cstdio>
#include <cstring>

#include "plan/choose_spmm.h"
#include "plan/measure.h"

namespace sparsert {
namespace {

// tune="auto" measures candidates whose predicted times lie this close to the best.
constexpr double kCloseRace = 1.6;

// Planes of all output rows together, from which on they lie beyond L2 when the layer begins.
constexpr int64_t kFarBytes = 384 * 1024;

// Cycles per vector that the feed copies: masked loads, two loads and a shuffle, or several of
// them.
double FeedCost(const Window& w, bool transposed) {
  if (transposed) return 12.0;
  if (w.stride[1] == 1 && w.in[1] == w.out[1]) return 1.5;
  return w.out[1] % 16 == 0 ? 3.0 : 6.0;
}

Status FillArgs(PlanBuilder* b, const SpmmOperands& o, const SpmmChoice& choice, bool direct,
                SpmmArgs** out, PackKey* key) {
  *key = o.key;
  key->format = static_cast<int>(choice.kernel.format);
  key->direct = direct;
  key->block_depth = choice.block_depth;
  const PackedSpmm* packed = nullptr;
  SRT_RETURN_IF_ERROR(b->weights->Spmm(*key, &packed));

  SpmmArgs* a = nullptr;
  SRT_RETURN_IF_ERROR(b->NewArgs(&a));
  a->batch = static_cast<int32_t>(o.batch);
  a->groups = o.key.groups;
  a->tiles = choice.tiling.tiles;
  a->vecs = choice.tiling.vecs;
  a->tile_vecs = choice.tiling.tile_vecs;
  a->columns = o.columns;
  a->direct = direct;
  if (!direct) {
    SRT_RETURN_IF_ERROR(b->Taps(o.window, o.key.transposed, choice.tiling, &a->taps));
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
  a->weights = packed->groups.data();
  a->act = o.act;
  a->bias = o.bias_values;
  if (o.bias != kNoTensor) {
    const void* bias = nullptr;
    SRT_RETURN_IF_ERROR(b->ConstantData(o.bias, &bias));
    a->bias = static_cast<const float*>(bias);
  }

  // Tiles are shared first; rows are split when there are too few of them. A split of a tap-fed
  // layer feeds the tile anew, one of a direct layer costs nothing and evens out the threads.
  const int64_t parallel = static_cast<int64_t>(a->batch) * a->groups * a->tiles;
  const int64_t wanted = static_cast<int64_t>(b->options.threads) * (direct ? 4 : 1);
  int32_t splits = 1;
  if (b->options.threads > 1 && parallel < wanted) {
    splits = static_cast<int32_t>((wanted + parallel - 1) / parallel);
  }
  const int32_t panels = packed->groups[0].panels;
  a->splits = std::max(1, std::min(splits, panels));
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

struct Measurements {
  int best = 0;
  double best_ns = 0.0;  // 0: nothing was measured
  char note[64] = "";    // what the runner-up took
};

// Times the candidates that the tune option asks for and keeps the packing of the fastest.
Status MeasureCandidates(PlanBuilder* b, const SpmmOperands& o, const SpmmChoice* choices,
                         int count, Measurements* m) {
  if (b->options.tune == Tune::kOff || b->options.clock == nullptr) return Status::Ok();
  const bool full = b->options.tune == Tune::kFull;
  const double limit = choices[0].predicted_ns * (full ? 6.0 : kCloseRace);
  int candidates = 0;
  while (candidates < count && choices[candidates].predicted_ns <= limit) ++candidates;
  if (candidates < 2 || (!full && b->tune_ns_left <= 0.0)) return Status::Ok();

  const uint64_t begin = b->options.clock();
  const SpmmArgs* args[kMaxSpmmChoices];
  PackKey keys[kMaxSpmmChoices];
  double ns[kMaxSpmmChoices];
  for (int i = 0; i < candidates; ++i) {
    SpmmArgs* filled = nullptr;
    SRT_RETURN_IF_ERROR(FillArgs(b, o, choices[i], o.may_be_direct, &filled, &keys[i]));
    args[i] = filled;
  }
  SRT_RETURN_IF_ERROR(
      MeasureSpmm(args, choices, candidates, b->options.clock, b->weights->allocator(), ns));
  int second = -1;
  for (int i = 1; i < candidates; ++i) {
    if (ns[i] < ns[m->best]) {
      second = m->best;
      m->best = i;
    } else if (second < 0 || ns[i] < ns[second]) {
      second = i;
    }
  }
  m->best_ns = ns[m->best];
  snprintf(m->note, sizeof(m->note), ", %s %.1f us", SpmmFormatName(choices[second].kernel.format),
           ns[second] * 1e-3);
  for (int i = 0; i < candidates; ++i) {
    if (i != m->best) b->weights->Drop(keys[i]);
  }
  b->tune_ns_left -= static_cast<double>(b->options.clock() - begin);
  return Status::Ok();
}

}  // namespace

Status LowerSpmm(PlanBuilder* b, const SpmmOperands& o) {
  MatrixStats stats;
  SRT_RETURN_IF_ERROR(b->weights->Stats(o.key, &stats));

  SpmmProblem problem;
  problem.cpu = b->options.cpu;
  problem.columns = o.columns;
  problem.batch = o.batch;
  problem.threads = b->options.threads;
  problem.direct = o.may_be_direct;
  problem.feed_cost = FeedCost(o.window, o.key.transposed);
  SpmmChoice choices[kMaxSpmmChoices];
  const int count = RankSpmm(stats, problem, b->options.isa, b->options.format, choices);
  if (count == 0) return b->Fail(StatusCode::kUnsupported, "no spmm kernel in this build");

  Measurements measured;
  SRT_RETURN_IF_ERROR(MeasureCandidates(b, o, choices, count, &measured));

  const SpmmChoice& choice = choices[measured.best];
  SpmmArgs* args = nullptr;
  PackKey key;
  SRT_RETURN_IF_ERROR(FillArgs(b, o, choice, o.may_be_direct, &args, &key));
  const PackedSpmm* packed = nullptr;
  SRT_RETURN_IF_ERROR(b->weights->Spmm(key, &packed));
  b->weights->Keep(key);

  NodePlan& info = b->info();
  info.compute_format = SpmmFormatName(choice.kernel.format);
  info.packed_bytes = packed->bytes();
  info.predicted_ns = choice.predicted_ns;
  info.measured_ns = measured.best_ns;
  const double total = static_cast<double>(stats.rows) * stats.groups * stats.depth;
  const double zeros = total > 0 ? 100.0 * (1.0 - static_cast<double>(stats.nnz) / total) : 0.0;
  if (b->options.format != kAnyFormat) {
    snprintf(info.reason, sizeof(info.reason), "forced by SPARSERT_FORMAT at %.1f %% zeros", zeros);
  } else if (measured.best_ns > 0.0) {
    snprintf(info.reason, sizeof(info.reason), "fastest measured at %.1f %% zeros: %.1f us%s",
             zeros, measured.best_ns * 1e-3, measured.note);
  } else {
    double dense_ns = 0.0;
    for (int i = count; i-- > 0;) {
      if (SpmmIsDense(choices[i].kernel.format)) dense_ns = choices[i].predicted_ns;
    }
    snprintf(info.reason, sizeof(info.reason),
             "cost model at %.1f %% zeros: %.1f us, dense %.1f us", zeros,
             choice.predicted_ns * 1e-3, dense_ns * 1e-3);
  }
  const IoRef io[] = {o.x, o.r, o.y};
  return b->AddStep(choice.kernel.kernel, args, {io, 3}, SpmmItems(*args),
                    SpmmScratch(*args, choice.kernel.lanes, choice.block_depth),
                    choice.predicted_ns);
}

}  // namespace sparsert
