// Walks the graph backwards from index-like inputs.
#include "graph/plan_inputs.h"

#include "graph/infer_rules.h"

namespace sparsert {
namespace {

// The inputs whose values the plan needs, as bits.
uint32_t IndexInputs(Op op) {
  switch (op) {
    case Op::kSplit:
    case Op::kReshape:
    case Op::kSqueeze:
    case Op::kUnsqueeze:
    case Op::kExpand:
    case Op::kReduce:
    case Op::kTopK:
    case Op::kOneHot:
    case Op::kCumSum:
    case Op::kCumProd:
    case Op::kTrilu:
    case Op::kTile:
      return 1u << 1;
    case Op::kSlice:
      return 1u << 1 | 1u << 2 | 1u << 3 | 1u << 4;
    case Op::kPad:
      return 1u << 1 | 1u << 2 | 1u << 3;
    case Op::kResize:
      return 1u << 1 | 1u << 2 | 1u << 3;
    case Op::kConstantOfShape:
      return 1u << 0;
    case Op::kRange:
      return 1u << 0 | 1u << 1 | 1u << 2;
    default:
      return 0;
  }
}

}  // namespace

Status FindPlanInputs(const Graph& graph, Array<bool>* needed) {
  Array<bool> known(graph.tensors.allocator());
  SRT_RETURN_IF_ERROR(known.resize(graph.tensors.size()));
  for (bool& k : known) k = false;
  for (size_t i = graph.nodes.size(); i-- > 0;) {
    const Node& node = graph.nodes[i];
    bool folded = false;
    for (uint32_t t : node.outputs) folded |= t != kNoTensor && known[t];
    const size_t data_inputs = folded ? FoldedInputs(node) : 0;
    const uint32_t index = IndexInputs(node.op);
    for (size_t k = 0; k < node.inputs.size; ++k) {
      const uint32_t t = node.inputs[k];
      if (t != kNoTensor && (k < data_inputs || (k < 32 && (index >> k & 1) != 0))) known[t] = true;
    }
  }
  SRT_RETURN_IF_ERROR(needed->resize(graph.inputs.size));
  for (size_t i = 0; i < graph.inputs.size; ++i) {
    const Tensor& tensor = graph.tensors[graph.inputs[i]];
    (*needed)[i] = known[graph.inputs[i]] && (tensor.rank <= 1 || tensor.rank == kUnknownRank);
  }
  return Status::Ok();
}

}  // namespace sparsert
