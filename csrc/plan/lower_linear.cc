// Lowers Linear and convolutions over single elements: spmv for each vector, or spmm over
// transposed activations for all of them.
#include <algorithm>
#include <cstdio>

#include "plan/choose_spmv.h"
#include "plan/lower_spmm.h"
#include "plan/vector_columns.h"

namespace sparsert {
namespace {

// Multiply-adds per spmv work item: enough to be worth handing to a thread.
constexpr double kItemWeights = 16384.0;

// Vectors of a slice, for each thread: many are multiplied slice by slice, so that their columns
// stay in L2 from one transposition to the other.
constexpr int64_t kSliceVectors = 512;
// Slices of a trial: all but the first find the weights where the one before left them.
constexpr int64_t kTrialSlices = 2;

// Numbers of candidates: those of spmv, then those of spmm.
constexpr int kFirstSpmm = kMaxSpmvChoices;

int64_t SliceOf(int64_t batch, int64_t threads) {
  const int64_t most = kSliceVectors * threads;
  if (batch <= most + most / 2) return batch;
  const int64_t slices = (batch + most - 1) / most;
  return ((batch + slices - 1) / slices + 15) / 16 * 16;
}

class MatrixLayer {
 public:
  MatrixLayer(PlanBuilder* b, const LinearOperands& o)
      : b_(b),
        o_(o),
        slice_(SliceOf(o.batch, b->options.threads)),
        in_(b->graph.tensors[o.w].data.cols, slice_),
        out_(b->graph.tensors[o.w].data.rows, slice_),
        spmm_(b, product_) {}

  Status Lower();

 private:
  Status EnterSpmv(Contest* contest);
  Status EnterSpmm(Contest* contest);
  Status PrepareSpmv(int n, Trial* trial);
  Status PrepareSpmm(int n, Trial* trial);
  Status FillSpmv(const SpmvChoice& choice, SpmvArgs** args, PackKey* key);
  Status LowerSpmv(const SpmvChoice& choice);
  Status LowerSpmm(int n);

  static Status Prepare(void* layer, int number, Trial* trial) {
    auto* self = static_cast<MatrixLayer*>(layer);
    return number < kFirstSpmm ? self->PrepareSpmv(number, trial)
                               : self->PrepareSpmm(number - kFirstSpmm, trial);
  }

  PlanBuilder* b_;
  const LinearOperands& o_;
  const int64_t slice_;  // vectors that are multiplied together
  VectorColumns in_;
  VectorColumns out_;
  SpmvChoice spmv_[kMaxSpmvChoices];
  SpmmOperands product_;
  SpmmLayer spmm_;
};

Status MatrixLayer::EnterSpmv(Contest* contest) {
  PackKey key;
  key.tensor = o_.w;
  SpmvProblem problem;
  SRT_RETURN_IF_ERROR(b_->weights->Stats(key, &problem.weights));
  problem.cpu = b_->options.cpu;
  problem.batch = o_.batch;
  problem.groups = true;
  problem.forced = ForcedSpmv(b_->options.format);
  const int count = PredictSpmv(problem, b_->options.isa, spmv_);
  for (int n = 0; n < count; ++n) {
    Candidate c;
    c.format = SpmvFormatName(spmv_[n].format);
    c.kernel = spmv_[n].kernel.name;
    c.predicted_ns = spmv_[n].predicted_ns;
    contest->Add(c, n, spmv_[n].stored);
  }
  return Status::Ok();
}

Status MatrixLayer::EnterSpmm(Contest* contest) {
  product_.key.tensor = o_.w;
  product_.batch = 1;
  product_.columns = slice_;
  product_.may_be_direct = true;
  product_.x_image = in_.floats();
  product_.x_row = in_.width;
  product_.y_image = out_.floats();
  product_.y_row = out_.width;
  product_.r_image = o_.has_residual ? product_.y_image : 0;
  product_.r_row = o_.has_residual ? product_.y_row : 0;
  product_.bias = o_.bias;
  product_.act = o_.act;
  const double slice = static_cast<double>(slice_);
  double copies_ns = TransposeNs(static_cast<double>(in_.size) * slice);
  copies_ns += TransposeNs(static_cast<double>(out_.size) * slice) * (o_.has_residual ? 2.0 : 1.0);
  SRT_RETURN_IF_ERROR(spmm_.Rank());
  for (int n = 0; n < spmm_.count(); ++n) {
    Candidate c = spmm_.CandidateOf(n);
    c.predicted_ns = (c.predicted_ns + copies_ns) * static_cast<double>(o_.batch) / slice;
    contest->Add(c, kFirstSpmm + n, spmm_.StoredOf(n));
  }
  return Status::Ok();
}

Status MatrixLayer::FillSpmv(const SpmvChoice& choice, SpmvArgs** out, PackKey* key) {
  key->tensor = o_.w;
  key->vector = true;
  key->bias = o_.bias;
  key->format = static_cast<int>(choice.format);
  key->lanes = choice.lanes;
  key->perm_pairs = choice.perm_pairs();
  const PackedSpmv* packed = nullptr;
  SRT_RETURN_IF_ERROR(b_->weights->Spmv(*key, &packed));
  SpmvArgs* args = nullptr;
  SRT_RETURN_IF_ERROR(b_->NewArgs(&args));
  args->batch = static_cast<int32_t>(o_.batch);
  if (kMaxSpmvGroup > 1) args->group = choice.group;
  args->x_row = in_.size;
  args->r_row = args->y_row = out_.size;
  args->weights = packed->slices;
  args->act = o_.act;
  args->chunks = SpmvChunks(choice, packed->slices.slices, kItemWeights);
  *out = args;
  return Status::Ok();
}

Status MatrixLayer::PrepareSpmv(int n, Trial* trial) {
  SpmvArgs* args = nullptr;
  SRT_RETURN_IF_ERROR(FillSpmv(spmv_[n], &args, &trial->keys[0]));
  Trial::Part& part = trial->parts[trial->part_count++];
  part.kernel = spmv_[n].kernel;
  part.args = args;
  part.io[0] = kTrialX;
  part.io[1] = o_.has_residual ? kTrialR : kNoBuffer;
  part.io[2] = kTrialY;
  part.io_count = 3;
  part.items = SpmvItems(*args);
  return Status::Ok();
}

Status MatrixLayer::PrepareSpmm(int n, Trial* trial) {
  const int64_t slices = slice_ < o_.batch ? kTrialSlices : 1;
  for (int64_t i = 0; i < slices; ++i) {
    SRT_RETURN_IF_ERROR(
        AddTranspose(b_, in_.vectors(slice_), kTrialX, in_.columns(slice_), kTrialColumnsX, trial));
    if (o_.has_residual) {
      SRT_RETURN_IF_ERROR(AddTranspose(b_, out_.vectors(slice_), kTrialR, out_.columns(slice_),
                                       kTrialColumnsR, trial));
    }
    SRT_RETURN_IF_ERROR(spmm_.Prepare(n, kTrialColumnsX, kTrialColumnsR, kTrialColumnsY,
                                      &trial->parts[trial->part_count++], &trial->keys[0]));
    SRT_RETURN_IF_ERROR(AddTranspose(b_, out_.columns(slice_), kTrialColumnsY, out_.vectors(slice_),
                                     kTrialY, trial));
  }
  trial->share = static_cast<double>(slices * slice_) / static_cast<double>(o_.batch);
  return Status::Ok();
}

Status MatrixLayer::LowerSpmv(const SpmvChoice& choice) {
  SpmvArgs* args = nullptr;
  PackKey key;
  SRT_RETURN_IF_ERROR(FillSpmv(choice, &args, &key));
  const PackedSpmv* packed = nullptr;
  SRT_RETURN_IF_ERROR(b_->weights->Spmv(key, &packed));
  b_->weights->Keep(key);
  b_->info().packed_bytes = packed->bytes();
  ExplainForced(b_);
  const IoRef io[] = {o_.x, o_.r, o_.y};
  return b_->AddStep(choice.kernel, args, {io, 3}, SpmvItems(*args), 0, choice.predicted_ns);
}

Status MatrixLayer::LowerSpmm(int n) {
  // Feature-major activations: lanes = vectors of a slice. The last slice may have fewer of its
  // own; what is beside them in the buffers is multiplied too and goes nowhere.
  SRT_RETURN_IF_ERROR(b_->Temporary(in_.bytes(), &product_.x));
  SRT_RETURN_IF_ERROR(b_->Temporary(out_.bytes(), &product_.y));
  if (o_.has_residual) {
    SRT_RETURN_IF_ERROR(b_->Temporary(out_.bytes(), &product_.r));
  }
  const auto vector_at = [](IoRef ref, int64_t vector, int64_t size) {
    ref.offset += static_cast<size_t>(vector * size) * sizeof(float);
    return ref;
  };
  for (int64_t first = 0; first < o_.batch; first += slice_) {
    const int64_t count = std::min(slice_, o_.batch - first);
    SRT_RETURN_IF_ERROR(b_->AddCopy(in_.vectors(count), vector_at(o_.x, first, in_.size),
                                    in_.columns(count), product_.x));
    if (o_.has_residual) {
      SRT_RETURN_IF_ERROR(b_->AddCopy(out_.vectors(count), vector_at(o_.r, first, out_.size),
                                      out_.columns(count), product_.r));
    }
    SRT_RETURN_IF_ERROR(spmm_.Lower(n));
    SRT_RETURN_IF_ERROR(b_->AddCopy(out_.columns(count), product_.y, out_.vectors(count),
                                    vector_at(o_.y, first, out_.size)));
  }
  return Status::Ok();
}

Status MatrixLayer::Lower() {
  const int format = b_->options.format;
  Contest contest;
  if (MayUseSpmv(format, o_.batch)) SRT_RETURN_IF_ERROR(EnterSpmv(&contest));
  if (MayUseSpmm(format, o_.batch)) SRT_RETURN_IF_ERROR(EnterSpmm(&contest));
  if (contest.count == 0) {
    return b_->Fail(StatusCode::kUnsupported, "no matrix kernel in this build");
  }
  const size_t vectors_out = static_cast<size_t>(o_.batch * out_.size);
  contest.buffer_floats[kTrialX] = static_cast<size_t>(o_.batch * in_.size);
  contest.buffer_floats[kTrialR] = o_.has_residual ? vectors_out : 0;
  contest.buffer_floats[kTrialY] = vectors_out;
  contest.buffer_floats[kTrialColumnsX] = static_cast<size_t>(in_.floats());
  contest.buffer_floats[kTrialColumnsR] = static_cast<size_t>(o_.has_residual ? out_.floats() : 0);
  contest.buffer_floats[kTrialColumnsY] = static_cast<size_t>(out_.floats());
  contest.prepare = &Prepare;
  contest.layer = this;
  int winner = 0;
  SRT_RETURN_IF_ERROR(ChooseCandidate(b_, &contest, &winner));
  return winner < kFirstSpmm ? LowerSpmv(spmv_[winner]) : LowerSpmm(winner - kFirstSpmm);
}

}  // namespace

Status LowerMatrix(PlanBuilder* b, const LinearOperands& o) { return MatrixLayer(b, o).Lower(); }

Status LowerLinear(PlanBuilder* b) {
  const Node& node = *b->node;
  const uint32_t residual = node.Input(3);
  if (b->is_feature_major(node.Input(0)) || b->is_feature_major(node.outputs[0]) ||
      (residual != kNoTensor && b->is_feature_major(residual))) {
    return LowerColumns(b);
  }
  const Shape& in = b->facts(node.Input(0)).shape;
  LinearOperands o;
  o.w = node.Input(1);
  o.bias = node.Input(2);
  o.batch = 1;
  for (int d = 0; d + 1 < in.rank; ++d) o.batch *= in.dims[d];
  SRT_RETURN_IF_ERROR(b->Plain(node.Input(0), &o.x));
  o.has_residual = node.Input(3) != kNoTensor;
  if (o.has_residual) SRT_RETURN_IF_ERROR(b->Plain(node.Input(3), &o.r));
  o.act = FusedActivation(node);
  const uint32_t y = node.outputs[0];
  if (b->desc(y).is_plain()) {
    o.y = b->ref(y);
    return LowerMatrix(b, o);
  }
  SRT_RETURN_IF_ERROR(
      b->Temporary(static_cast<size_t>(b->facts(y).shape.elements()) * sizeof(float), &o.y));
  SRT_RETURN_IF_ERROR(LowerMatrix(b, o));
  return b->AddCopy(PlainDesc(DType::kF32, b->facts(y).shape), o.y, b->desc(y), b->ref(y));
}

}  // namespace sparsert
