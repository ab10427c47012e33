// Products of packed bytes for several vectors: transposed, they are the columns of one.
#include "plan/lower_qcolumns.h"

#include "plan/choose_spmv.h"

namespace sparsert {
namespace {

SpmmOperands ProductOf(const SpmmOperands& vectors, const VectorColumns& in,
                       const VectorColumns& out) {
  SpmmOperands o = vectors;
  o.batch = 1;
  o.columns = o.window.in[1] = o.window.out[1] = vectors.batch;
  o.may_be_direct = true;
  o.x = o.r = o.y = IoRef();
  o.x_image = o.x_group = in.floats();
  o.x_row = in.width;
  o.y_image = o.y_group = out.floats();
  o.y_row = out.width;
  const bool has_residual = vectors.r.kind != IoRef::kNone;
  o.r_image = o.r_group = has_residual ? out.floats() : 0;
  o.r_row = has_residual ? out.width : 0;
  return o;
}

}  // namespace

QcolumnsLayer::QcolumnsLayer(PlanBuilder* b, const SpmmOperands& vectors, int64_t x_planes,
                             int64_t y_planes)
    : b_(b),
      vectors_(vectors),
      in_(x_planes, vectors.batch),
      out_(y_planes, vectors.batch),
      layer_(b, product_) {
  product_ = ProductOf(vectors, in_, out_);
}

Status QcolumnsLayer::Enter(int first_number, Contest* contest) {
  const auto count = static_cast<double>(vectors_.batch);
  double copies_ns = TransposeNs(static_cast<double>(in_.size) * count);
  copies_ns += TransposeNs(static_cast<double>(out_.size) * count) * (has_residual() ? 2.0 : 1.0);
  SRT_RETURN_IF_ERROR(layer_.Enter(first_number, copies_ns, contest));
  contest->buffer_floats[kTrialColumnsX] = static_cast<size_t>(in_.floats());
  contest->buffer_floats[kTrialColumnsR] = static_cast<size_t>(has_residual() ? out_.floats() : 0);
  contest->buffer_floats[kTrialColumnsY] = static_cast<size_t>(out_.floats());
  return Status::Ok();
}

Status QcolumnsLayer::Prepare(int n, Trial* trial) {
  const int64_t count = vectors_.batch;
  SRT_RETURN_IF_ERROR(AddTranspose(b_, in_.vectors(count, vectors_.x_image), kTrialX,
                                   in_.columns(count), kTrialColumnsX, trial));
  if (has_residual()) {
    SRT_RETURN_IF_ERROR(AddTranspose(b_, out_.vectors(count, vectors_.r_image), kTrialR,
                                     out_.columns(count), kTrialColumnsR, trial));
  }
  SRT_RETURN_IF_ERROR(layer_.Prepare(n, kTrialColumnsX, kTrialColumnsR, kTrialColumnsY,
                                     &trial->parts[trial->part_count++], &trial->keys[0]));
  return AddTranspose(b_, out_.columns(count), kTrialColumnsY,
                      out_.vectors(count, vectors_.y_image), kTrialY, trial);
}

Status QcolumnsLayer::Lower(int n) {
  const int64_t count = vectors_.batch;
  SRT_RETURN_IF_ERROR(b_->Temporary(in_.bytes(), &product_.x));
  SRT_RETURN_IF_ERROR(b_->AddCopy(in_.vectors(count, vectors_.x_image), vectors_.x,
                                  in_.columns(count), product_.x));
  if (has_residual()) {
    SRT_RETURN_IF_ERROR(b_->Temporary(out_.bytes(), &product_.r));
    SRT_RETURN_IF_ERROR(b_->AddCopy(out_.vectors(count, vectors_.r_image), vectors_.r,
                                    out_.columns(count), product_.r));
  }
  SRT_RETURN_IF_ERROR(b_->Temporary(out_.bytes(), &product_.y));
  SRT_RETURN_IF_ERROR(layer_.Lower(n));
  return b_->AddCopy(out_.columns(count), product_.y, out_.vectors(count, vectors_.y_image),
                     vectors_.y);
}

}  // namespace sparsert
