// Lowers MatMul.
#include <cstdio>
#include <utility>

#include "graph/resolve.h"
#include "kernels/matmul/matmul.h"
#include "plan/builder.h"

namespace sparsert {
namespace {

// Nanoseconds of a multiply-add, about.
constexpr double kMultiplyAddNs = 0.03;

// A matrix operand seen as [rows, columns], and its batch strides aligned to `batch`.
struct Matrix {
  int64_t row = 0;
  int64_t column = 0;
  int64_t batch[kMaxRank] = {};
};

// `is_row`: a tensor of rank 1 is a row, not a column.
Matrix MatrixOf(const TensorDesc& x, bool is_row, bool transposed, const Shape& batch) {
  Matrix m;
  const int rank = x.shape.rank;
  if (rank == 1) {
    (is_row ? m.column : m.row) = x.strides[0];
    return m;
  }
  m.row = x.strides[rank - 2];
  m.column = x.strides[rank - 1];
  if (transposed) std::swap(m.row, m.column);
  for (int d = 0; d < batch.rank; ++d) {
    const int from = d - (batch.rank - (rank - 2));
    if (from >= 0 && x.shape.dims[from] != 1) m.batch[d] = x.strides[from];
  }
  return m;
}

// The result, which has no dimension for an operand of rank 1.
Matrix ResultOf(const TensorDesc& y, bool has_rows, bool has_columns, const Shape& batch) {
  Matrix m;
  int d = batch.rank;
  for (int i = 0; i < d; ++i) m.batch[i] = y.strides[i];
  if (has_rows) m.row = y.strides[d++];
  if (has_columns) m.column = y.strides[d];
  return m;
}

// Where every image meets the same right operand, the images' rows are one matrix of rows.
void JoinRows(MatMulSizes* sizes, Matrix* left, const Matrix& right, Matrix* out) {
  if (sizes->n != 1 && out->column != 1) return;
  for (int d = sizes->batch.rank - 1; d >= 0 && right.batch[d] == 0; --d) {
    const int64_t images = sizes->batch.dims[d];
    if (sizes->m == 1) {
      left->row = left->batch[d];
      out->row = out->batch[d];
    } else if (images != 1 &&
               (left->batch[d] != sizes->m * left->row || out->batch[d] != sizes->m * out->row)) {
      return;
    }
    sizes->m *= images;
    sizes->batch.rank = d;
  }
}

}  // namespace

Status LowerMatMul(PlanBuilder* b) {
  const Node& node = *b->node;
  const uint32_t y = node.outputs[0];
  MatMulSizes sizes;
  SRT_RETURN_IF_ERROR(ResolveMatMul(NodeView(b->graph, b->plan->facts, node), &sizes));
  const TensorDesc& a_desc = b->desc(node.Input(0));
  const TensorDesc& b_desc = b->desc(node.Input(1));
  Matrix left = MatrixOf(a_desc, true, node.IntAttr(AttrKey::k_trans_a, 0) != 0, sizes.batch);
  Matrix right = MatrixOf(b_desc, false, node.IntAttr(AttrKey::k_trans_b, 0) != 0, sizes.batch);
  Matrix out = ResultOf(b->desc(y), a_desc.shape.rank > 1, b_desc.shape.rank > 1, sizes.batch);
  JoinRows(&sizes, &left, right, &out);
  IoRef left_ref = b->ref(node.Input(0));
  IoRef right_ref = b->ref(node.Input(1));
  // Vectors run along the columns. Where the rows of the result are contiguous instead, or it has
  // one column, the transposed product is computed: y' = b' a'.
  const bool rows_fit = sizes.m == 1 || out.row == 1;
  const bool columns_fit = sizes.n == 1 || out.column == 1;
  if (!columns_fit && !rows_fit) return b->Fail(StatusCode::kInternal, "rows with gaps");
  if (rows_fit && (!columns_fit || sizes.n == 1)) {
    std::swap(left.row, left.column);
    std::swap(right.row, right.column);
    std::swap(left, right);
    std::swap(left_ref, right_ref);
    std::swap(out.row, out.column);
    std::swap(sizes.m, sizes.n);
  }
  MatMulArgs* args = nullptr;
  SRT_RETURN_IF_ERROR(b->NewArgs(&args));
  args->m = sizes.m;
  args->n = sizes.n;
  args->k = sizes.k;
  args->a_row = left.row;
  args->a_col = left.column;
  args->b_row = right.row;
  args->b_col = right.column;
  args->y_row = out.row;
  args->alpha = node.FloatAttr(AttrKey::k_alpha, 1.0f);
  args->batch_rank = sizes.batch.rank;
  for (int d = 0; d < sizes.batch.rank; ++d) {
    args->batch_dims[d] = sizes.batch.dims[d];
    args->batch_strides[0][d] = left.batch[d];
    args->batch_strides[1][d] = right.batch[d];
    args->batch_strides[2][d] = out.batch[d];
  }
  ShareMatMul(b->options.threads, args);
  Kernel kernel;
  if (!SelectMatMul(*args, b->options.isa, &kernel)) {
    return b->Fail(StatusCode::kInternal, "no kernel for these operands");
  }
  b->info().compute_format = "dense";
  snprintf(b->info().reason, sizeof(b->info().reason), "a product of two activations");
  const double work = static_cast<double>(args->batches) * static_cast<double>(sizes.m) *
                      static_cast<double>(sizes.n) * static_cast<double>(sizes.k);
  const IoRef io[] = {left_ref, right_ref, b->ref(y)};
  return b->AddStep(kernel, args, {io, 3}, MatMulItems(*args), MatMulScratch(*args),
                    work * kMultiplyAddNs);
}

}  // namespace sparsert
