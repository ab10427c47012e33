// Products of packed bytes for one column: a vector at a time, or several as columns.
#include "plan/lower_qspmv.h"

#include <algorithm>

#include "plan/choose_candidate.h"
#include "plan/lower_qcolumns.h"

namespace sparsert {
namespace {

// Groups of weights of an item: a few microseconds of work.
constexpr double kItemGroups = 16384.0;

// Bytes of weights that no L2 holds from one run to the next.
constexpr size_t kBeyondCache = 4 << 20;

// Candidates of columns have numbers from here on.
constexpr int kFirstColumns = kMaxSpmvChoices;

class QspmvLayer {
 public:
  QspmvLayer(PlanBuilder* b, const SpmmOperands& operands, int64_t x_planes, int64_t y_planes)
      : b_(b), o_(operands), columns_(b, operands, x_planes, y_planes) {}

  Status Lower() {
    const int format = b_->options.format;
    Contest contest;
    if (MayUseSpmv(format, o_.batch)) SRT_RETURN_IF_ERROR(EnterVectors(&contest));
    if (o_.batch > 1 && MayUseSpmm(format, o_.batch)) {
      SRT_RETURN_IF_ERROR(columns_.Enter(kFirstColumns, &contest));
    }
    if (contest.count == 0) {
      return b_->Fail(StatusCode::kUnsupported, "no matrix kernel in this build");
    }
    contest.buffer_floats[kTrialX] = static_cast<size_t>(o_.batch * o_.x_image);
    contest.buffer_floats[kTrialR] = static_cast<size_t>(o_.batch * o_.r_image);
    contest.buffer_floats[kTrialY] = static_cast<size_t>(o_.batch * o_.y_image);
    contest.bytes = true;
    contest.prepare = &Prepare;
    contest.layer = this;
    int winner = 0;
    SRT_RETURN_IF_ERROR(ChooseCandidate(b_, &contest, &winner));
    return winner < kFirstColumns ? LowerVectors(winner) : columns_.Lower(winner - kFirstColumns);
  }

 private:
  Status EnterVectors(Contest* contest) {
    SpmvProblem problem;
    SRT_RETURN_IF_ERROR(b_->weights->Stats(o_.key, &problem.weights));
    SRT_RETURN_IF_ERROR(b_->weights->NonZeros(o_.key.tensor, &problem.nonzero_bytes));
    rows_ = problem.weights.rows;
    problem.cpu = b_->options.cpu;
    problem.batch = o_.batch;
    problem.bytes = true;
    problem.groups = true;
    problem.forced = ForcedSpmv(b_->options.format);
    count_ = PredictSpmv(problem, b_->options.isa, choices_);
    for (int n = 0; n < count_; ++n) {
      Candidate c;
      c.format = SpmvFormatName(choices_[n].format);
      c.kernel = choices_[n].kernel.name;
      c.predicted_ns = choices_[n].predicted_ns;
      contest->Add(c, n, choices_[n].stored);
    }
    return Status::Ok();
  }

  Status LowerVectors(int winner) {
    QspmvArgs* args = nullptr;
    PackKey key;
    SRT_RETURN_IF_ERROR(FillArgs(winner, &args, &key));
    const PackedSpmv* packed = nullptr;
    SRT_RETURN_IF_ERROR(b_->weights->Spmv(key, &packed));
    b_->weights->Keep(key);
    b_->info().packed_bytes = packed->bytes();
    ExplainForced(b_);
    IoRef rows;
    if (o_.params.kind != IoRef::kNone) {
      args->output.at_run = true;
      SRT_RETURN_IF_ERROR(AddRowScales(b_, o_, rows_, choices_[winner].byte_offset, &rows));
    }
    const IoRef io[] = {o_.x, o_.r, o_.y, rows};
    return b_->AddStep(choices_[winner].kernel, args, {io, 4}, QspmvItems(*args), 0,
                       choices_[winner].predicted_ns);
  }

  Status FillArgs(int n, QspmvArgs** out, PackKey* key) {
    const SpmvChoice& choice = choices_[n];
    *key = o_.key;
    key->vector = true;
    key->format = static_cast<int>(choice.format);
    key->lanes = choice.lanes;
    key->perm_pairs = choice.perm_pairs();
    const PackedSpmv* packed = nullptr;
    SRT_RETURN_IF_ERROR(b_->weights->Spmv(*key, &packed));
    QspmvArgs* args = nullptr;
    SRT_RETURN_IF_ERROR(b_->NewArgs(&args));
    args->batch = static_cast<int32_t>(o_.batch);
    if (kMaxSpmvGroup > 1) args->group = choice.group;
    args->x_row = o_.x_image;
    args->r_row = o_.r_image;
    args->y_row = o_.y_image;
    args->weights = packed->slices;
    args->output = *o_.quantised;
    args->output.product.bias = o_.bias_values;
    args->output.product.act = o_.act;
    auto* start = b_->plan->memory.Allocate<int32_t>(static_cast<size_t>(rows_));
    if (start == nullptr) return Status::OutOfMemory("row sums", rows_ * sizeof(int32_t));
    for (int64_t r = 0; r < rows_; ++r) {
      start[r] = static_cast<int32_t>(o_.row_start[r] + choice.byte_offset * o_.row_weights[r]);
    }
    args->output.start = start;
    args->chunks = SpmvChunks(choice, packed->slices.slices, kItemGroups);
    *out = args;
    return Status::Ok();
  }

  static Status Prepare(void* layer, int number, Trial* trial) {
    auto* self = static_cast<QspmvLayer*>(layer);
    if (number >= kFirstColumns) return self->columns_.Prepare(number - kFirstColumns, trial);
    QspmvArgs* args = nullptr;
    SRT_RETURN_IF_ERROR(self->FillArgs(number, &args, &trial->keys[0]));
    Trial::Part& part = trial->parts[0];
    trial->part_count = 1;
    part.kernel = self->choices_[number].kernel;
    part.args = args;
    part.io[0] = kTrialX;
    part.io[1] = self->o_.r.kind == IoRef::kNone ? kNoBuffer : kTrialR;
    part.io[2] = kTrialY;
    part.io_count = 3;
    part.items = QspmvItems(*args);
    const PackedSpmv* packed = nullptr;
    SRT_RETURN_IF_ERROR(self->b_->weights->Spmv(trial->keys[0], &packed));
    trial->settles = packed->bytes() > kBeyondCache;
    return Status::Ok();
  }

  PlanBuilder* b_;
  const SpmmOperands& o_;
  QcolumnsLayer columns_;
  int64_t rows_ = 0;
  SpmvChoice choices_[kMaxSpmvChoices];
  int count_ = 0;
};

}  // namespace

Status LowerQspmv(PlanBuilder* b, const SpmmOperands& operands, int64_t x_planes,
                  int64_t y_planes) {
  return QspmvLayer(b, operands, x_planes, y_planes).Lower();
}

}  // namespace sparsert
