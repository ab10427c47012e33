// The choice between winograd and the spmm formats for one convolution, and winograd's step.
#include "plan/lower_winograd.h"

#include "plan/conv_operands.h"

namespace sparsert {
namespace {

constexpr int kWinogradNumber = kMaxSpmmChoices;  // spmm's candidates have those below

// A convolution and the ways to compute it.
struct ConvLayer {
  ConvLayer(PlanBuilder* b, const SpmmOperands& operands)
      : spmm(b, operands), winograd(b, operands) {}

  static Status Prepare(void* layer, int number, Trial* trial) {
    auto* self = static_cast<ConvLayer*>(layer);
    if (number == kWinogradNumber) return self->winograd.Prepare(trial);
    trial->part_count = 1;
    return self->spmm.Prepare(number, kTrialX, kTrialR, kTrialY, &trial->parts[0], &trial->keys[0]);
  }

  SpmmLayer spmm;
  WinogradLayer winograd;
};

}  // namespace

bool WinogradLayer::Fits() const {
  const Window& w = o_.window;
  for (int d = 0; d < 2; ++d) {
    if (w.kernel[d] != 3 || w.stride[d] != 1 || w.dilation[d] != 1) return false;
  }
  return o_.key.groups == 1 && !o_.key.transposed;
}

void WinogradLayer::Enter(int number, Contest* contest) {
  const Tensor& filters = b_->graph.tensors[o_.key.tensor];
  WinogradProblem problem;
  problem.cpu = b_->options.cpu;
  problem.batch = o_.batch;
  problem.rows = filters.dims[0];
  problem.channels = filters.dims[1];
  problem.out_h = o_.window.out[0];
  problem.out_w = o_.window.out[1];
  problem.threads = b_->options.threads;
  if (!ChooseWinograd(problem, b_->options.isa, &choice_)) return;
  Candidate c;
  c.format = kWinogradName;
  c.kernel = choice_.kernel.kernel.name;
  c.predicted_ns = choice_.predicted_ns;
  c.tiles = choice_.blocks;
  c.tile_columns = choice_.block_vecs * choice_.kernel.lanes;
  c.block_depth = choice_.shape.block_depth;
  contest->Add(c, number, static_cast<double>(choice_.shape.floats()));
}

Status WinogradLayer::FillArgs(WinogradArgs** out, PackKey* key) {
  key->tensor = o_.key.tensor;
  key->panel_rows = choice_.shape.panel_rows;
  key->group_panels = choice_.shape.group_panels;
  key->block_depth = choice_.shape.block_depth;
  const PackedWinograd* packed = nullptr;
  SRT_RETURN_IF_ERROR(b_->weights->Winograd(*key, &packed));

  WinogradArgs* a = nullptr;
  SRT_RETURN_IF_ERROR(b_->NewArgs(&a));
  a->batch = static_cast<int32_t>(o_.batch);
  a->vecs = choice_.vecs;
  a->blocks = choice_.blocks;
  a->block_vecs = choice_.block_vecs;
  a->splits = choice_.splits;
  PlaceWindow(o_.window, a);
  a->x_image = o_.x_image;
  a->x_plane = o_.x_row;
  a->r_image = o_.r_image;
  a->r_plane = o_.r_row;
  a->y_image = o_.y_image;
  a->y_plane = o_.y_row;
  a->weights = packed->weights;
  SRT_RETURN_IF_ERROR(b_->ConstantFloats(o_.bias, &a->bias));
  a->act = o_.act;
  *out = a;
  return Status::Ok();
}

Status WinogradLayer::Prepare(Trial* trial) {
  WinogradArgs* args = nullptr;
  SRT_RETURN_IF_ERROR(FillArgs(&args, &trial->keys[0]));
  Trial::Part& part = trial->parts[0];
  trial->part_count = 1;
  part.kernel = choice_.kernel.kernel;
  part.args = args;
  part.io[0] = kTrialX;
  part.io[1] = o_.r_row != 0 ? kTrialR : kNoBuffer;
  part.io[2] = kTrialY;
  part.io_count = 3;
  part.items = WinogradItems(*args);
  part.scratch_bytes = LayOutWinogradScratch(*args, choice_.kernel.lanes).bytes;
  return Status::Ok();
}

Status WinogradLayer::Lower() {
  WinogradArgs* args = nullptr;
  PackKey key;
  SRT_RETURN_IF_ERROR(FillArgs(&args, &key));
  b_->weights->Keep(key);
  b_->info().packed_bytes = static_cast<uint64_t>(args->weights.floats()) * sizeof(float);
  ExplainForced(b_);
  const IoRef io[] = {o_.x, o_.r, o_.y};
  return b_->AddStep(choice_.kernel.kernel, args, {io, 3}, WinogradItems(*args),
                     LayOutWinogradScratch(*args, choice_.kernel.lanes).bytes,
                     choice_.predicted_ns);
}

Status LowerConvolution(PlanBuilder* b, const SpmmOperands& o) {
  ConvLayer layer(b, o);
  Contest contest;
  if (layer.winograd.Fits() && ForcedSpmm(b->options.format) == kAnyFormat) {
    layer.winograd.Enter(kWinogradNumber, &contest);
  }
  if (b->options.format != kWinogradFormat || contest.count == 0) {
    SRT_RETURN_IF_ERROR(layer.spmm.Enter(0, 0.0, &contest));
  }
  if (contest.count == 0) return b->Fail(StatusCode::kUnsupported, "no kernel in this build");
  contest.buffer_floats[kTrialX] = layer.spmm.x_floats();
  contest.buffer_floats[kTrialR] = layer.spmm.r_floats();
  contest.buffer_floats[kTrialY] = layer.spmm.y_floats();
  contest.prepare = &ConvLayer::Prepare;
  contest.layer = &layer;
  int winner = 0;
  SRT_RETURN_IF_ERROR(ChooseCandidate(b, &contest, &winner));
  return winner == kWinogradNumber ? layer.winograd.Lower() : layer.spmm.Lower(winner);
}

}  // namespace sparsert
