// Chooses the parts of every concatenation, the last one first.
//
// A block of a DenseNet joins the same tensors again and again, each time with one more: joined
// anew ([a, b], then [a, b, c]) or onto the last result ([a, b] = x, then [x, c]). The last Concat
// holds all of them; as the parts of it are chosen first, the earlier ones find their inputs side
// by side in there, or are a part of it.
#include "plan/place_concats.h"

#include "graph/resolve.h"
#include "plan/find_views.h"

namespace sparsert {
namespace {

// Whether the node's output may hold parts.
bool IsWhole(const Graph& graph, const ShapeTable& table, const Node& node) {
  if (node.op != Op::kConcat) return false;
  const TensorFacts& f = table.facts[node.outputs[0]];
  if (f.is_known || f.dtype != DType::kF32 || f.shape.rank < 3 || f.shape.elements() == 0) {
    return false;
  }
  for (uint32_t t : graph.outputs) {
    if (t == node.outputs[0]) return false;
  }
  int axis = 0;
  const int64_t given = node.IntAttr(AttrKey::k_axis, 0);
  // Rows of single elements are no planes: matrix kernels want them side by side.
  return NormalizeAxis(node, given, f.shape.rank, &axis).ok() && axis == 1 &&
         PlainDesc(f.dtype, f.shape).plane() > 1;
}

// Marks the tensors that a step writes to memory of the plan's own choice.
Status FindWritten(const Graph& graph, const ShapeTable& table, Array<bool>* written) {
  SRT_RETURN_IF_ERROR(written->resize(graph.tensors.size()));
  for (bool& w : *written) w = false;
  for (const Node& node : graph.nodes) {
    if (IsReshape(node.op)) continue;
    for (size_t i = 0; i < node.outputs.size; ++i) {
      const uint32_t t = node.outputs[i];
      if (t == kNoTensor || table.facts[t].is_known) continue;
      ViewRange view;
      SRT_RETURN_IF_ERROR(FindView(NodeView(graph, table, node), i, &view));
      (*written)[t] = !view.is_view && table.facts[t].shape.elements() != 0;
    }
  }
  for (uint32_t t : graph.outputs) (*written)[t] = false;
  return Status::Ok();
}

}  // namespace

bool IsReshape(Op op) {
  return op == Op::kReshape || op == Op::kFlatten || op == Op::kSqueeze || op == Op::kUnsqueeze;
}

Status PlaceConcats(const Graph& graph, const ShapeTable& table, Array<ConcatPart>* parts) {
  SRT_RETURN_IF_ERROR(parts->resize(graph.tensors.size()));
  for (ConcatPart& part : *parts) part = ConcatPart();
  Array<bool> written(parts->allocator());
  SRT_RETURN_IF_ERROR(FindWritten(graph, table, &written));
  for (size_t i = graph.nodes.size(); i-- > 0;) {
    const Node& node = graph.nodes[i];
    if (!IsWhole(graph, table, node)) continue;
    int64_t first = 0;
    for (uint32_t t : node.inputs) {
      ConcatPart& part = (*parts)[t];
      if (written[t] && part.whole == kNoTensor) {
        part.whole = node.outputs[0];
        part.first = first;
      }
      first += table.facts[t].shape.dims[1];
    }
  }
  return Status::Ok();
}

}  // namespace sparsert
