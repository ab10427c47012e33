// Views of Split and Slice.
#include "plan/find_views.h"

#include "graph/resolve.h"

namespace sparsert {
namespace {

Status FindSplitView(const NodeView& node, size_t output, ViewRange* range) {
  int axis = 0;
  SRT_RETURN_IF_ERROR(ResolveSplitAxis(node, &axis));
  if (axis > 1) return Status::Ok();
  for (size_t i = 0; i < output; ++i) {
    int64_t size = 0;
    SRT_RETURN_IF_ERROR(ResolveSplitSize(node, axis, i, &size));
    range->start[axis] += size;
  }
  range->is_view = true;
  return Status::Ok();
}

Status FindSliceView(const NodeView& node, ViewRange* range) {
  SliceRange slice;
  SRT_RETURN_IF_ERROR(ResolveSlice(node, &slice));
  const Shape& in = node.InShape(0);
  for (int d = 0; d < in.rank; ++d) {
    const bool whole = slice.out.dims[d] == in.dims[d] && slice.start[d] == 0;
    const bool steps = slice.step[d] != 1 && slice.out.dims[d] > 1;
    if (steps || (d > 1 && !whole)) return Status::Ok();
    if (d <= 1) range->start[d] = slice.start[d];
  }
  range->is_view = true;
  return Status::Ok();
}

}  // namespace

Status FindView(const NodeView& node, size_t output, ViewRange* range) {
  *range = ViewRange();
  const uint32_t y = node.node.outputs[output];
  if (y == kNoTensor || node.table.facts[y].shape.elements() == 0) return Status::Ok();
  if (node.node.op == Op::kSplit) return FindSplitView(node, output, range);
  if (node.node.op == Op::kSlice) return FindSliceView(node, range);
  return Status::Ok();
}

}  // namespace sparsert
