// Lowers Linear: spmv for few vectors, spmm over transposed activations for many.
#include <algorithm>
#include <cstdio>

#include "kernels/spmv/spmv.h"
#include "plan/builder.h"
#include "plan/lower_spmm.h"

namespace sparsert {
namespace {

// From this many vectors on, one pass over the weights for all of them beats a pass for each.
constexpr int64_t kSpmmBatch = 6;

// Multiply-adds per spmv work item: enough to be worth handing to a thread.
constexpr uint64_t kItemWeights = 16384;

Status LowerSpmv(PlanBuilder* b, const LinearOperands& o, int64_t rows, int64_t cols,
                 uint64_t nnz) {
  // Gathering a column costs about 2.5 times as much as streaming a dense weight.
  const double zeros = 1.0 - static_cast<double>(nnz) / (static_cast<double>(rows) * cols);
  const SpmvFormat format = zeros > 0.6 ? SpmvFormat::kSell : SpmvFormat::kDense;
  Kernel kernel;
  int lanes = 0;
  if (!SelectSpmv(format, b->options.isa, &kernel, &lanes)) {
    return b->Fail(StatusCode::kUnsupported, "no spmv kernel in this build");
  }
  PackKey key;
  key.tensor = o.w;
  key.vector = true;
  key.bias = o.bias;
  key.format = static_cast<int>(format);
  key.lanes = lanes;
  const PackedSpmv* packed = nullptr;
  SRT_RETURN_IF_ERROR(b->weights->Spmv(key, &packed));
  b->weights->Keep(key);

  SpmvArgs* args = nullptr;
  SRT_RETURN_IF_ERROR(b->NewArgs(&args));
  args->batch = static_cast<int32_t>(o.batch);
  args->x_row = cols;
  args->r_row = args->y_row = rows;
  args->weights = packed->slices;
  args->act = o.act;
  const uint64_t stored = format == SpmvFormat::kDense ? static_cast<uint64_t>(rows) * cols : nnz;
  args->chunks = static_cast<int32_t>(
      std::max<int64_t>(1, std::min<int64_t>(packed->slices.slices, stored / kItemWeights)));

  NodePlan& info = b->info();
  info.compute_format = format == SpmvFormat::kSell ? "sell" : "dense";
  info.packed_bytes = packed->bytes();
  info.predicted_ns = static_cast<double>(stored) * o.batch *
                      (format == SpmvFormat::kSell ? 0.5 : 0.2) * 16.0 / lanes;
  snprintf(info.reason, sizeof(info.reason),
           "%lld vector(s) at %.1f %% zeros: matrix-vector, %s from 60 %% zeros on",
           static_cast<long long>(o.batch), 100.0 * zeros, "gathered columns");
  const IoRef io[] = {o.x, o.r, o.y};
  return b->AddStep(kernel, args, {io, 3}, SpmvItems(*args), 0, info.predicted_ns);
}

// Matrix [rows, cols] with any strides, so that a copy can transpose it.
TensorDesc MatrixDesc(int64_t rows, int64_t cols, int64_t row_stride, int64_t col_stride) {
  TensorDesc desc;
  desc.dtype = DType::kF32;
  desc.shape.rank = 2;
  desc.shape.dims[0] = rows;
  desc.shape.dims[1] = cols;
  desc.strides[0] = row_stride;
  desc.strides[1] = col_stride;
  return desc;
}

}  // namespace

Status LowerMatrix(PlanBuilder* b, const LinearOperands& o) {
  const Tensor& weights = b->graph.tensors[o.w];
  const int64_t rows = weights.data.rows;
  const int64_t cols = weights.data.cols;
  uint64_t nnz = 0;
  SRT_RETURN_IF_ERROR(b->weights->NonZeros(o.w, &nnz));
  if (o.batch < kSpmmBatch) return LowerSpmv(b, o, rows, cols, nnz);

  // Feature-major activations: [cols][batch] in, [rows][batch] out, lanes = vectors of the batch.
  const int64_t width = (o.batch + 15) / 16 * 16;
  IoRef xt, rt, yt;
  SRT_RETURN_IF_ERROR(b->Temporary(static_cast<size_t>(cols) * width * sizeof(float), &xt));
  SRT_RETURN_IF_ERROR(b->Temporary(static_cast<size_t>(rows) * width * sizeof(float), &yt));
  SRT_RETURN_IF_ERROR(
      b->AddCopy(MatrixDesc(o.batch, cols, cols, 1), o.x, MatrixDesc(o.batch, cols, 1, width), xt));
  if (o.has_residual) {
    SRT_RETURN_IF_ERROR(b->Temporary(static_cast<size_t>(rows) * width * sizeof(float), &rt));
    SRT_RETURN_IF_ERROR(b->AddCopy(MatrixDesc(o.batch, rows, rows, 1), o.r,
                                   MatrixDesc(o.batch, rows, 1, width), rt));
  }
  SpmmOperands s;
  s.key.tensor = o.w;
  s.batch = 1;
  s.columns = o.batch;
  s.may_be_direct = true;
  s.x_image = cols * width;
  s.x_row = width;
  s.y_image = rows * width;
  s.y_row = width;
  s.r_image = o.has_residual ? rows * width : 0;
  s.r_row = o.has_residual ? width : 0;
  s.x = xt;
  s.r = rt;
  s.y = yt;
  s.bias = o.bias;
  s.act = o.act;
  SRT_RETURN_IF_ERROR(LowerSpmm(b, s));
  return b->AddCopy(MatrixDesc(o.batch, rows, 1, width), yt, MatrixDesc(o.batch, rows, rows, 1),
                    o.y);
}

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
