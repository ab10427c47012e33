// Lowers Recurrent: sequences one after the other with spmv, or side by side with spmm.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>

#include "kernels/recurrent/recurrent.h"
#include "plan/builder.h"
#include "plan/choose_layouts.h"
#include "plan/choose_spmv.h"
#include "plan/lower_spmm.h"

namespace sparsert {
namespace {

// Of a matrix, what one sequence after the other is multiplied with, and what the steps go through
// in turns: it stays in L2.
constexpr size_t kChunkBytes = 128 << 10;

// Sequences of a group: the widest tile of any kernel.
constexpr int64_t kMaxGroup = 128;

// A trial has so many steps: the first one meets the weights cold, as a run does.
constexpr int64_t kTrialSteps = 6;

// Sequences from which on they always go side by side, and make their projection themselves.
constexpr int64_t kMinProjected = 16;
// Columns of a projection. Its result stays in L2 until the steps read it, if there are few; but
// weights that L2 does not hold beside it are read less often, if there are many.
constexpr int64_t kSparseColumns = 128;
constexpr int64_t kDenseColumns = 256;

// Nanoseconds per element of a gate: its function, and its way from or to a group's columns.
constexpr double kGateNs = 0.5;
constexpr double kTransposeNs = 0.15;

// Numbers of candidates: those of spmv, then those of spmm.
constexpr int kFirstSpmm = kMaxSpmvChoices;

// Groups of about equal size, enough for the threads if each has a vector.
int64_t GroupOf(int64_t batch, int64_t threads) {
  batch = std::max<int64_t>(1, batch);
  const int64_t vectors = (batch + 15) / 16;
  const int64_t groups =
      std::max((batch + kMaxGroup - 1) / kMaxGroup, std::min<int64_t>(threads, vectors));
  return groups == 1 ? batch : (vectors + groups - 1) / groups * 16;
}

// What multiplies the state, or the state after the reset.
struct Matrix {
  Matrix(PlanBuilder* b, uint32_t weights, uint32_t bias_tensor)
      : tensor(weights), bias(bias_tensor), spmm(b, product) {}

  uint32_t tensor;
  uint32_t bias;
  uint64_t nonzeros = 0;
  SpmvChoice spmv[kMaxSpmvChoices];
  int spmv_count = 0;
  SpmmOperands product;
  SpmmLayer spmm;
};

class RecurrentLayer {
 public:
  explicit RecurrentLayer(PlanBuilder* b)
      : b_(b),
        node_(*b->node),
        state_(b, b->node->Input(1), b->node->Input(2)),
        candidate_(b, b->node->Input(3), kNoTensor) {}

  Status Lower();

 private:
  bool projects() const { return b_->projection.recurrent == b_->node_index; }
  bool has_candidate() const { return candidate_.tensor != kNoTensor; }
  const Span<Matrix*> matrices() { return {list_, has_candidate() ? size_t{2} : size_t{1}}; }

  Status FillArgs();
  Status RankMatrix(Matrix* matrix);
  void EnterSpmv(Contest* contest);
  void EnterSpmm(Contest* contest);
  // The candidate of `matrix` that has the format of the state's candidate n.
  int SameFormat(const Matrix& matrix, int n) const;
  // The same for spmv; without zeros or blocks one of two matrices may have fewer formats.
  const SpmvChoice& SameSpmv(const Matrix& matrix, int n) const;
  Status PackVector(Matrix* matrix, int n, StateProduct* product, PackKey* key);
  Status PackColumns(Matrix* matrix, int n, StateProduct* product, PackKey* key);
  // The arguments of one candidate, its weights packed.
  Status Pack(int number, RecurrentArgs* args, PackKey (&keys)[2]);
  Status PrepareTrial(int number, Trial* trial);
  Status Append(int winner);

  static Status Prepare(void* layer, int number, Trial* trial) {
    return static_cast<RecurrentLayer*>(layer)->PrepareTrial(number, trial);
  }

  double elements() const {
    return static_cast<double>(args_.steps) * static_cast<double>(args_.batch) *
           static_cast<double>(args_.hidden);
  }
  int64_t trial_steps() const { return std::min(args_.steps, kTrialSteps); }
  int64_t trial_batch() const { return std::min(args_.batch, group_); }

  PlanBuilder* b_;
  const Node& node_;
  RecurrentArgs args_;  // but for the products
  int64_t group_ = 0;
  Matrix state_;
  Matrix candidate_;
  Matrix* list_[2] = {&state_, &candidate_};
};

Status RecurrentLayer::FillArgs() {
  const Shape& y = b_->facts(node_.outputs[0]).shape;
  args_.cell = static_cast<Cell>(node_.IntAttr(AttrKey::k_cell, 0));
  args_.reverse = node_.IntAttr(AttrKey::k_reverse, 0) != 0;
  args_.couples = node_.IntAttr(AttrKey::k_input_forget, 0) != 0;
  args_.clip = node_.FloatAttr(AttrKey::k_clip, INFINITY);
  args_.steps = y.dims[0];
  args_.batch = y.dims[1];
  args_.hidden = y.dims[2];
  const Span<int64_t> functions = node_.IntsAttr(AttrKey::k_activations);
  Activation* const targets[] = {&args_.f, &args_.g, &args_.h};
  const void* parameters = nullptr;
  if (node_.Input(8) != kNoTensor) {
    SRT_RETURN_IF_ERROR(b_->ConstantData(node_.Input(8), &parameters));
  }
  for (size_t i = 0; i < functions.size && i < 3; ++i) {
    targets[i]->fn = static_cast<UnaryFn>(functions[i]);
    if (parameters == nullptr) continue;
    targets[i]->alpha = static_cast<const float*>(parameters)[2 * i];
    targets[i]->beta = static_cast<const float*>(parameters)[2 * i + 1];
  }
  return b_->ConstantFloats(node_.Input(7), &args_.peephole);
}

Status RecurrentLayer::RankMatrix(Matrix* matrix) {
  const EncodedTensor& data = b_->graph.tensors[matrix->tensor].data;
  SRT_RETURN_IF_ERROR(b_->weights->NonZeros(matrix->tensor, &matrix->nonzeros));
  PackKey key;
  key.tensor = matrix->tensor;
  SpmvProblem problem;
  SRT_RETURN_IF_ERROR(b_->weights->Stats(key, &problem.weights));
  problem.cpu = b_->options.cpu;
  problem.batch = args_.steps * args_.batch;
  problem.forced = ForcedSpmv(b_->options.format);
  matrix->spmv_count = PredictSpmv(problem, b_->options.isa, matrix->spmv);

  const int64_t row = PlaneStride(group_);
  SpmmOperands& o = matrix->product;
  o.key.tensor = matrix->tensor;
  o.columns = group_;
  o.may_be_direct = true;
  o.split_bytes = kChunkBytes;
  o.x_image = data.cols * row;
  o.x_row = row;
  o.y_image = data.rows * row;
  o.y_row = row;
  o.bias = matrix->bias;
  return matrix->spmm.Rank();
}

void RecurrentLayer::EnterSpmv(Contest* contest) {
  for (int n = 0; n < state_.spmv_count; ++n) {
    const SpmvChoice& choice = state_.spmv[n];
    Candidate c;
    c.format = SpmvFormatName(choice.format);
    c.kernel = choice.kernel.name;
    c.predicted_ns = elements() * static_cast<double>(GatesOf(args_.cell)) * kGateNs;
    double stored = 0.0;
    for (const Matrix* matrix : matrices()) {
      const SpmvChoice& own = SameSpmv(*matrix, n);
      c.predicted_ns += own.predicted_ns;
      stored += own.stored;
    }
    contest->Add(c, n, stored);
  }
}

const SpmvChoice& RecurrentLayer::SameSpmv(const Matrix& matrix, int n) const {
  for (int i = 0; i < matrix.spmv_count; ++i) {
    if (matrix.spmv[i].format == state_.spmv[n].format) return matrix.spmv[i];
  }
  return matrix.spmv[std::min(n, matrix.spmv_count - 1)];
}

int RecurrentLayer::SameFormat(const Matrix& matrix, int n) const {
  const char* format = state_.spmm.CandidateOf(n).format;
  for (int i = 0; i < matrix.spmm.count(); ++i) {
    if (strcmp(matrix.spmm.CandidateOf(i).format, format) == 0) return i;
  }
  return 0;
}

void RecurrentLayer::EnterSpmm(Contest* contest) {
  const double groups = static_cast<double>((args_.batch + group_ - 1) / group_);
  const double gates = static_cast<double>(GatesOf(args_.cell));
  for (int n = 0; n < state_.spmm.count(); ++n) {
    Candidate c = state_.spmm.CandidateOf(n);
    double product_ns = 0.0;
    double stored = 0.0;
    for (const Matrix* matrix : matrices()) {
      const int own = SameFormat(*matrix, n);
      product_ns += matrix->spmm.CandidateOf(own).predicted_ns;
      stored += matrix->spmm.StoredOf(own);
    }
    c.predicted_ns = product_ns * groups * static_cast<double>(args_.steps) +
                     elements() * (gates * kGateNs + (gates + 1.0) * kTransposeNs);
    contest->Add(c, kFirstSpmm + n, stored);
  }
}

Status RecurrentLayer::PackVector(Matrix* matrix, int n, StateProduct* product, PackKey* key) {
  const SpmvChoice& choice = SameSpmv(*matrix, n);
  key->tensor = matrix->tensor;
  key->vector = true;
  key->bias = matrix->bias;
  key->format = static_cast<int>(choice.format);
  key->lanes = choice.lanes;
  const PackedSpmv* packed = nullptr;
  SRT_RETURN_IF_ERROR(b_->weights->Spmv(*key, &packed));
  product->run = choice.kernel.run;
  product->vector.weights = packed->slices;
  const auto chunks = static_cast<int64_t>(packed->bytes() / kChunkBytes);
  product->vector.chunks =
      static_cast<int32_t>(std::max<int64_t>(1, std::min<int64_t>(packed->slices.slices, chunks)));
  return Status::Ok();
}

Status RecurrentLayer::PackColumns(Matrix* matrix, int n, StateProduct* product, PackKey* key) {
  Trial::Part part;
  const int own = SameFormat(*matrix, n);
  SRT_RETURN_IF_ERROR(
      matrix->spmm.Prepare(own, kTrialColumnsX, kNoBuffer, kTrialColumnsY, &part, key));
  product->run = part.kernel.run;
  product->columns = static_cast<const SpmmArgs*>(part.args);
  product->columns_scratch = part.scratch_bytes;
  return Status::Ok();
}

Status RecurrentLayer::Pack(int number, RecurrentArgs* args, PackKey (&keys)[2]) {
  *args = args_;
  StateProduct* const products[] = {&args->state, &args->candidate};
  const bool columns = number >= kFirstSpmm;
  if (columns) {
    args->group = group_;
    args->column_row = PlaneStride(group_);
  }
  for (size_t i = 0; i < matrices().size; ++i) {
    SRT_RETURN_IF_ERROR(columns ? PackColumns(list_[i], number - kFirstSpmm, products[i], &keys[i])
                                : PackVector(list_[i], number, products[i], &keys[i]));
  }
  return Status::Ok();
}

Status RecurrentLayer::PrepareTrial(int number, Trial* trial) {
  RecurrentArgs* args = nullptr;
  SRT_RETURN_IF_ERROR(b_->NewArgs(&args));
  SRT_RETURN_IF_ERROR(Pack(number, args, trial->keys));
  args->steps = trial_steps();
  args->batch = trial_batch();
  Kernel kernel;
  if (!SelectRecurrent(*args, b_->options.isa, &kernel)) {
    return b_->Fail(StatusCode::kInternal, "no kernel for these operands");
  }
  Trial::Part& part = trial->parts[trial->part_count++];
  part.kernel = kernel;
  part.args = args;
  part.io[0] = kTrialX;
  part.io[4] = kTrialY;
  part.io_count = 7;
  part.items = RecurrentItems(*args);
  part.scratch_bytes = RecurrentScratch(*args);
  if (part.items > 0 && args->steps > 0) {
    trial->share = static_cast<double>(args->steps * args->batch) /
                   static_cast<double>(args_.steps * args_.batch);
  }
  return Status::Ok();
}

Status RecurrentLayer::Append(int winner) {
  RecurrentArgs* args = nullptr;
  SRT_RETURN_IF_ERROR(b_->NewArgs(&args));
  PackKey keys[2];
  SRT_RETURN_IF_ERROR(Pack(winner, args, keys));
  if (projects()) {
    args->projection.run = b_->projection.run;
    args->projection.columns = b_->projection.args;
    args->projection.columns_scratch = b_->projection.scratch_bytes;
    args->width = b_->projection.width;
    args->chunk_steps = b_->projection.steps;
    args->projection_row = b_->projection.row;
  }
  NodePlan& info = b_->info();
  info.packed_bytes = 0;
  for (size_t i = 0; i < matrices().size; ++i) {
    b_->weights->Keep(keys[i]);
    if (args->group == 0) {
      const PackedSpmv* packed = nullptr;
      SRT_RETURN_IF_ERROR(b_->weights->Spmv(keys[i], &packed));
      info.packed_bytes += packed->bytes();
    } else {
      const PackedSpmm* packed = nullptr;
      SRT_RETURN_IF_ERROR(b_->weights->Spmm(keys[i], &packed));
      info.packed_bytes += packed->bytes();
    }
  }
  ExplainForced(b_);
  const size_t said = strlen(info.reason);
  if (args->group == 0) {
    snprintf(info.reason + said, sizeof(info.reason) - said, "; one sequence after the other");
  } else {
    snprintf(info.reason + said, sizeof(info.reason) - said, "; %lld sequences side by side",
             static_cast<long long>(args->group));
  }
  Kernel kernel;
  if (!SelectRecurrent(*args, b_->options.isa, &kernel)) {
    return b_->Fail(StatusCode::kInternal, "no kernel for these operands");
  }
  IoRef io[7];
  if (projects()) {
    io[0] = b_->projection.x;
  } else {
    SRT_RETURN_IF_ERROR(b_->Plain(node_.Input(0), &io[0]));
  }
  for (size_t i = 0; i < 3; ++i) {
    if (node_.Input(4 + i) == kNoTensor) continue;
    SRT_RETURN_IF_ERROR(b_->Plain(node_.Input(4 + i), &io[1 + i]));
  }
  for (size_t i = 0; i < node_.outputs.size; ++i) {
    if (node_.outputs[i] == kNoTensor) continue;
    SRT_RETURN_IF_ERROR(b_->PlainOutput(node_.outputs[i], &io[4 + i]));
  }
  SRT_RETURN_IF_ERROR(
      b_->AddStep(kernel, args, {io, 7}, RecurrentItems(*args), RecurrentScratch(*args),
                  info.predicted_ns + (projects() ? b_->projection.predicted_ns : 0.0)));
  for (size_t i = 0; i < node_.outputs.size; ++i) {
    if (node_.outputs[i] == kNoTensor) continue;
    SRT_RETURN_IF_ERROR(b_->FinishPlain(node_.outputs[i], io[4 + i]));
  }
  return Status::Ok();
}

Status RecurrentLayer::Lower() {
  SRT_RETURN_IF_ERROR(FillArgs());
  group_ = GroupOf(args_.batch, b_->options.threads);
  for (Matrix* matrix : matrices()) SRT_RETURN_IF_ERROR(RankMatrix(matrix));
  if (has_candidate()) {
    const EncodedTensor& data = b_->graph.tensors[candidate_.tensor].data;
    b_->info().weights += static_cast<uint64_t>(data.rows) * data.cols;
    b_->info().nonzeros += candidate_.nonzeros;
    b_->info().storage_bytes += data.stored_bytes;
  }
  const int format = b_->options.format;
  Contest contest;
  if (!projects() && MayUseSpmv(format, args_.batch)) EnterSpmv(&contest);
  if (MayUseSpmm(format, args_.batch) || contest.count == 0) EnterSpmm(&contest);
  if (contest.count == 0) {
    return b_->Fail(StatusCode::kUnsupported, "no matrix kernel in this build");
  }
  const auto trial_tokens = static_cast<size_t>(trial_steps() * trial_batch() * args_.hidden);
  contest.buffer_floats[kTrialX] = trial_tokens * static_cast<size_t>(GatesOf(args_.cell));
  contest.buffer_floats[kTrialY] = trial_tokens;
  contest.prepare = &Prepare;
  contest.layer = this;
  int winner = 0;
  SRT_RETURN_IF_ERROR(ChooseCandidate(b_, &contest, &winner));
  return Append(winner);
}

}  // namespace

Status LowerRecurrent(PlanBuilder* b) { return RecurrentLayer(b).Lower(); }

bool PlanBuilder::IsProjection() const {
  const Node& n = *node;
  if (n.op != Op::kLinear || n.Input(3) != kNoTensor || FusedActivation(n).fn != UnaryFn::kNone ||
      node_index + 1 >= graph.nodes.size()) {
    return false;
  }
  const uint32_t y = n.outputs[0];
  const Node& next = graph.nodes[node_index + 1];
  const Shape& shape = facts(y).shape;
  return next.op == Op::kRecurrent && next.Input(0) == y && last_use_[y] == node_index + 1 &&
         output_of_[y] == kNoTensor && concat_parts_[y].whole == kNoTensor && !feature_major_[y] &&
         shape.dims[1] >= kMinProjected && shape.elements() != 0;
}

namespace {

// The product of a projection and what of it a trial runs.
struct ProjectionTrial {
  SpmmLayer* layer;
  double share;
};

Status PrepareProjection(void* trial_of, int number, Trial* trial) {
  const auto* of = static_cast<const ProjectionTrial*>(trial_of);
  trial->part_count = 1;
  trial->share = of->share;
  return of->layer->Prepare(number, kTrialX, kNoBuffer, kTrialY, &trial->parts[0], &trial->keys[0]);
}

}  // namespace

Status LowerProjection(PlanBuilder* b) {
  const Node& n = *b->node;
  const Shape& y = b->facts(n.outputs[0]).shape;
  const int64_t steps = y.dims[0];
  const int64_t group = GroupOf(y.dims[1], b->options.threads);
  const bool dense = 2 * b->info().nonzeros > b->info().weights;
  const int64_t columns = dense ? kDenseColumns : kSparseColumns;
  const int64_t chunk = std::max<int64_t>(1, std::min(steps, columns / group));
  // The vector more is for reads of whole vectors that begin at any column.
  const int64_t row = PlaneStride(chunk * group + 16);
  SpmmOperands o;
  o.key.tensor = n.Input(1);
  o.columns = chunk * group;
  o.may_be_direct = true;
  o.x_row = o.y_row = row;
  o.x_image = b->graph.tensors[n.Input(1)].data.cols * o.x_row;
  o.y_image = y.dims[2] * o.y_row;
  o.bias = n.Input(2);
  SpmmLayer layer(b, o);
  SRT_RETURN_IF_ERROR(layer.Rank());
  const double chunks = static_cast<double>((steps + chunk - 1) / chunk) *
                        static_cast<double>((y.dims[1] + group - 1) / group);
  Contest contest;
  for (int i = 0; i < layer.count(); ++i) {
    Candidate c = layer.CandidateOf(i);
    c.predicted_ns *= chunks;
    contest.Add(c, i, layer.StoredOf(i));
  }
  if (contest.count == 0) return b->Fail(StatusCode::kUnsupported, "no spmm kernel in this build");
  contest.buffer_floats[kTrialX] = layer.x_floats();
  contest.buffer_floats[kTrialY] = layer.y_floats();
  ProjectionTrial trial = {&layer, 1.0 / chunks};
  contest.prepare = &PrepareProjection;
  contest.layer = &trial;
  int winner = 0;
  SRT_RETURN_IF_ERROR(ChooseCandidate(b, &contest, &winner));

  Trial::Part part;
  PackKey key;
  SRT_RETURN_IF_ERROR(layer.Prepare(winner, kTrialX, kNoBuffer, kTrialY, &part, &key));
  const PackedSpmm* packed = nullptr;
  SRT_RETURN_IF_ERROR(b->weights->Spmm(key, &packed));
  b->weights->Keep(key);
  ExplainForced(b);
  Projection& projection = b->projection;
  SRT_RETURN_IF_ERROR(b->Plain(n.Input(0), &projection.x));
  NodePlan& info = b->info();
  info.packed_bytes = packed->bytes();
  info.kernel = part.kernel.name;
  info.isa = part.kernel.isa;
  const size_t said = strlen(info.reason);
  snprintf(info.reason + said, sizeof(info.reason) - said,
           "; %lld steps at a time, by the Recurrent behind it", static_cast<long long>(chunk));
  projection.recurrent = b->node_index + 1;
  projection.run = part.kernel.run;
  projection.args = static_cast<const SpmmArgs*>(part.args);
  projection.scratch_bytes = part.scratch_bytes;
  projection.steps = chunk;
  projection.row = row;
  projection.width = b->graph.tensors[n.Input(1)].data.cols;
  projection.predicted_ns = info.predicted_ns;
  return Status::Ok();
}

}  // namespace sparsert
