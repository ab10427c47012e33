// Views of Split and Slice.
#include "plan/find_views.h"

#include "graph/resolve.h"

namespace sparsert {
namespace {

Status FindSplitView(const NodeView& node, size_t output, int plane_axis, ViewRange* range) {
  int axis = 0;
  SRT_RETURN_IF_ERROR(ResolveSplitAxis(node, &axis));
  if (axis != 0 && axis != plane_axis) return Status::Ok();
  for (size_t i = 0; i < output; ++i) {
    int64_t size = 0;
    SRT_RETURN_IF_ERROR(ResolveSplitSize(node, axis, i, &size));
    (axis == 0 ? range->image : range->plane) += size;
  }
  range->is_view = true;
  return Status::Ok();
}

Status FindSliceView(const NodeView& node, int plane_axis, ViewRange* range) {
  SliceRange slice;
  SRT_RETURN_IF_ERROR(ResolveSlice(node, &slice));
  const Shape& in = node.InShape(0);
  for (int d = 0; d < in.rank; ++d) {
    const bool whole = slice.out.dims[d] == in.dims[d] && slice.start[d] == 0;
    const bool steps = slice.step[d] != 1 && slice.out.dims[d] > 1;
    if (steps || (d != 0 && d != plane_axis && !whole)) return Status::Ok();
    if (d == 0) range->image = slice.start[d];
    if (d == plane_axis) range->plane = slice.start[d];
  }
  range->is_view = true;
  return Status::Ok();
}

}  // namespace

Status FindView(const NodeView& node, size_t output, const Array<bool>& feature_major,
                ViewRange* range) {
  *range = ViewRange();
  const uint32_t y = node.node.outputs[output];
  if (y == kNoTensor || node.table.facts[y].shape.elements() == 0) return Status::Ok();
  const Op op = node.node.op;
  if (op != Op::kSplit && op != Op::kSlice) return Status::Ok();
  if (feature_major[node.node.inputs[0]] != feature_major[y]) return Status::Ok();
  const int plane_axis = PlaneAxis(node.table.facts[y].shape, feature_major[y]);
  return op == Op::kSplit ? FindSplitView(node, output, plane_axis, range)
                          : FindSliceView(node, plane_axis, range);
}

}  // namespace sparsert
