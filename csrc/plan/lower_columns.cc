// Lowers a Linear whose operands are feature-major: over its columns, one product per image, or one
// of a matrix.
#include "plan/builder.h"
#include "plan/choose_layouts.h"
#include "plan/lower_spmm.h"

namespace sparsert {
namespace {

// An operand whose features are rows of columns.
struct Columns {
  IoRef ref;
  int64_t image = 0;
  int64_t row = 0;
};

Columns ColumnsOf(const TensorDesc& desc, const IoRef& ref) {
  const int last = desc.shape.rank - 1;
  const int64_t row = desc.strides[last];
  return {ref, last == 1 ? row * desc.shape.dims[last] : desc.strides[0], row};
}

// Rows are read whole vectors at a time.
bool IsPadded(const TensorDesc& desc, const IoRef& ref) {
  const int64_t columns = ColumnsOf(desc.shape);
  return ref.kind == IoRef::kArena && desc.strides[desc.shape.rank - 1] >= (columns + 15) / 16 * 16;
}

Status NewColumns(PlanBuilder* b, uint32_t tensor, TensorDesc* desc, IoRef* ref) {
  *desc = FeatureMajorDesc(b->facts(tensor).shape);
  return b->Temporary(StorageBytes(*desc), ref);
}

// The tensor itself, or a copy of it.
Status ReadColumns(PlanBuilder* b, uint32_t tensor, Columns* columns) {
  TensorDesc desc = b->desc(tensor);
  IoRef ref = b->ref(tensor);
  if (!b->is_feature_major(tensor) || !IsPadded(desc, ref)) {
    SRT_RETURN_IF_ERROR(NewColumns(b, tensor, &desc, &ref));
    SRT_RETURN_IF_ERROR(b->AddCopy(b->desc(tensor), b->ref(tensor), desc, ref));
  }
  *columns = ColumnsOf(desc, ref);
  return Status::Ok();
}

}  // namespace

Status LowerColumns(PlanBuilder* b) {
  const Node& node = *b->node;
  const uint32_t y = node.outputs[0];
  const Shape& out = b->facts(y).shape;
  Columns x;
  Columns r;
  SRT_RETURN_IF_ERROR(ReadColumns(b, node.Input(0), &x));
  if (node.Input(3) != kNoTensor) SRT_RETURN_IF_ERROR(ReadColumns(b, node.Input(3), &r));
  TensorDesc y_desc = b->desc(y);
  IoRef y_ref = b->ref(y);
  if (!b->is_feature_major(y)) SRT_RETURN_IF_ERROR(NewColumns(b, y, &y_desc, &y_ref));
  const Columns result = ColumnsOf(y_desc, y_ref);

  SpmmOperands s;
  s.key.tensor = node.Input(1);
  s.batch = out.rank == 2 ? 1 : out.dims[0];
  s.columns = ColumnsOf(out);
  s.may_be_direct = true;
  s.x = x.ref;
  s.x_image = x.image;
  s.x_row = x.row;
  s.r = r.ref;
  s.r_image = r.image;
  s.r_row = r.row;
  s.y = result.ref;
  s.y_image = result.image;
  s.y_row = result.row;
  s.bias = node.Input(2);
  s.act = FusedActivation(node);
  SRT_RETURN_IF_ERROR(LowerSpmm(b, s));
  if (b->is_feature_major(y)) return Status::Ok();
  return b->AddCopy(y_desc, y_ref, b->desc(y), b->ref(y));
}

}  // namespace sparsert
