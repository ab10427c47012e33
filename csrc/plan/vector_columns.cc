// The vectors of a batch and their columns as matrices, and the copies between them in trials.
#include "plan/vector_columns.h"

#include "kernels/copy/copy.h"

namespace sparsert {
namespace {

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

TensorDesc VectorColumns::vectors(int64_t count, int64_t stride) const {
  return MatrixDesc(count, size, stride, 1);
}

TensorDesc VectorColumns::columns(int64_t count) const { return MatrixDesc(count, size, 1, width); }

Status AddTranspose(PlanBuilder* b, const TensorDesc& from_desc, TrialBuffer from,
                    const TensorDesc& to_desc, TrialBuffer to, Trial* trial) {
  CopyArgs* args = nullptr;
  SRT_RETURN_IF_ERROR(b->NewArgs(&args));
  *args = MakeCopyArgs(DType::kF32, from_desc.shape, from_desc.strides, to_desc.strides);
  Trial::Part& part = trial->parts[trial->part_count++];
  if (!SelectCopy(*args, b->options.isa, &part.kernel)) {
    return b->Fail(StatusCode::kInternal, "no copy kernel");
  }
  part.args = args;
  part.io[0] = from;
  part.io[1] = to;
  part.io_count = 2;
  part.items = CopyItems(*args);
  return Status::Ok();
}

}  // namespace sparsert
