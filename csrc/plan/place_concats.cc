// Chooses the parts of every concatenation, the last one first.
//
// A block of a DenseNet joins the same tensors again and again, each time with one more: joined
// anew ([a, b], then [a, b, c]) or onto the last result ([a, b] = x, then [x, c]). The last Concat
// holds all of them; as the parts of it are chosen first, the earlier ones find their inputs side
// by side in there, or are a part of it.
#include "plan/place_concats.h"

#include "graph/resolve.h"
#include "plan/choose_layouts.h"
#include "plan/find_views.h"

namespace sparsert {
namespace {

// Memory for a whole is taken when its first part is written. A part that is written more than this
// many nodes before the next one, and makes up less than one in kWaitShare of the whole, is copied
// later instead: else memory would lie empty for most of the run.
constexpr uint32_t kWaitNodes = 32;
constexpr int64_t kWaitShare = 4;

constexpr uint32_t kNoNode = 0xffffffffu;

bool IsGraphOutput(const Graph& graph, uint32_t tensor) {
  for (uint32_t t : graph.outputs) {
    if (t == tensor) return true;
  }
  return false;
}

// Whether the node works along the channels of float planes, which it makes for the plan's own use.
bool MakesPlanes(const Graph& graph, const ShapeTable& table, const Array<bool>& feature_major,
                 const Node& node) {
  const uint32_t y = node.outputs[0];
  const TensorFacts& f = table.facts[y];
  if (f.is_known || f.dtype != DType::kF32 || f.shape.rank < 3 || f.shape.elements() == 0) {
    return false;
  }
  int axis = 0;
  const int64_t given = node.IntAttr(AttrKey::k_axis, 0);
  // Rows of single elements are no planes: matrix kernels want them side by side.
  const bool turned = feature_major[y];
  const int64_t plane = turned ? ColumnsOf(f.shape) : PlainDesc(f.dtype, f.shape).plane();
  return NormalizeAxis(node, given, f.shape.rank, &axis).ok() &&
         axis == PlaneAxis(f.shape, turned) && plane > 1 && !IsGraphOutput(graph, y);
}

// For a Gather of `channels` channels that takes each once: order[c] = the place of channel c in
// its output. nullptr for every other.
Status GatherOrder(const ShapeTable& table, const Node& gather, int64_t channels, Bump* memory,
                   const int64_t** order) {
  *order = nullptr;
  const uint32_t indices = gather.inputs[1];
  const TensorFacts& f = table.facts[indices];
  if (!f.is_known || f.shape.rank != 1 || f.shape.dims[0] != channels) return Status::Ok();
  int64_t* places = memory->Allocate<int64_t>(static_cast<size_t>(channels));
  if (places == nullptr) return Status::OutOfMemory("channel order", channels * sizeof(int64_t));
  for (int64_t c = 0; c < channels; ++c) places[c] = -1;
  const Span<int64_t> known = table.Known(indices);
  for (int64_t i = 0; i < channels; ++i) {
    const int64_t c = known[i] < 0 ? known[i] + channels : known[i];
    if (c < 0 || c >= channels || places[c] != -1) return Status::Ok();
    places[c] = i;
  }
  *order = places;
  return Status::Ok();
}

// Whether every input of the Concat has its channels at equal distances.
bool HoldsInputs(const ShapeTable& table, const Node& concat, const ConcatPart& whole) {
  int64_t first = 0;
  for (uint32_t t : concat.inputs) {
    const int64_t count = table.facts[t].shape.dims[1];
    ConcatPart part;
    if (count != 0 && !PartOfOrder(whole, first, count, &part)) return false;
    first += count;
  }
  return true;
}

// Gathers whose input is a Concat for them alone: that becomes part of their output.
Status PlaceReordered(const Graph& graph, const ShapeTable& table, const Array<bool>& feature_major,
                      Bump* memory, Array<ConcatPart>* parts) {
  Array<uint32_t> concats(parts->allocator());  // [tensors] the Concat that makes it
  Array<uint32_t> uses(parts->allocator());     // [tensors]
  SRT_RETURN_IF_ERROR(concats.resize(graph.tensors.size()));
  SRT_RETURN_IF_ERROR(uses.resize(graph.tensors.size()));
  for (size_t t = 0; t < uses.size(); ++t) {
    concats[t] = kNoNode;
    uses[t] = 0;
  }
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    const Node& node = graph.nodes[i];
    for (uint32_t t : node.inputs) {
      if (t != kNoTensor) ++uses[t];
    }
    if (node.op == Op::kConcat && MakesPlanes(graph, table, feature_major, node)) {
      concats[node.outputs[0]] = static_cast<uint32_t>(i);
    }
  }
  for (const Node& node : graph.nodes) {
    if (node.op != Op::kGather || !MakesPlanes(graph, table, feature_major, node)) continue;
    const uint32_t x = node.inputs[0];
    if (feature_major[x] || feature_major[node.outputs[0]]) continue;
    if (concats[x] == kNoNode || uses[x] != 1) continue;
    ConcatPart whole;
    whole.whole = node.outputs[0];
    SRT_RETURN_IF_ERROR(
        GatherOrder(table, node, table.facts[x].shape.dims[1], memory, &whole.order));
    if (whole.order != nullptr && HoldsInputs(table, graph.nodes[concats[x]], whole)) {
      (*parts)[x] = whole;
    }
  }
  return Status::Ok();
}

// For tensors that a step writes to memory of the plan's own choice: the node that it belongs to.
Status FindWriters(const Graph& graph, const ShapeTable& table, const Array<bool>& feature_major,
                   Array<uint32_t>* writers) {
  SRT_RETURN_IF_ERROR(writers->resize(graph.tensors.size()));
  for (uint32_t& writer : *writers) writer = kNoNode;
  for (size_t n = 0; n < graph.nodes.size(); ++n) {
    const Node& node = graph.nodes[n];
    if (IsReshape(node.op)) continue;
    for (size_t i = 0; i < node.outputs.size; ++i) {
      const uint32_t t = node.outputs[i];
      if (t == kNoTensor || table.facts[t].is_known) continue;
      ViewRange view;
      SRT_RETURN_IF_ERROR(FindView(NodeView(graph, table, node), i, feature_major, &view));
      if (!view.is_view && table.facts[t].shape.elements() != 0) {
        (*writers)[t] = static_cast<uint32_t>(n);
      }
    }
  }
  for (uint32_t t : graph.outputs) (*writers)[t] = kNoNode;
  return Status::Ok();
}

// Makes the inputs of the Concat, node `at`, parts of its result. `axis` is that of the channels.
void ChooseParts(const Graph& graph, const ShapeTable& table, const Array<uint32_t>& writers,
                 uint32_t at, int axis, Array<ConcatPart>* parts) {
  const Node& node = graph.nodes[at];
  const uint32_t y = node.outputs[0];
  const ConcatPart result = (*parts)[y];
  const uint32_t whole = result.order != nullptr ? result.whole : y;
  int64_t first = 0;
  for (uint32_t t : node.inputs) {
    const int64_t count = table.facts[t].shape.dims[axis];
    ConcatPart part;
    part.whole = y;
    part.first = first;
    first += count;
    if (writers[t] == kNoNode || (*parts)[t].whole != kNoTensor) continue;
    if (result.order != nullptr && !PartOfOrder(result, part.first, count, &part)) continue;
    (*parts)[t] = part;
  }
  for (;;) {
    // The parts that are written first and next.
    uint32_t earliest = kNoTensor;
    uint32_t next = at;
    for (uint32_t t : node.inputs) {
      if ((*parts)[t].whole != whole || t == earliest) continue;
      if (earliest == kNoTensor || writers[t] < writers[earliest]) {
        if (earliest != kNoTensor) next = writers[earliest];
        earliest = t;
      } else if (writers[t] < next) {
        next = writers[t];
      }
    }
    if (earliest == kNoTensor || next - writers[earliest] <= kWaitNodes ||
        table.facts[earliest].shape.dims[axis] * kWaitShare >= first) {
      return;
    }
    (*parts)[earliest] = ConcatPart();
  }
}

}  // namespace

bool IsReshape(Op op) {
  return op == Op::kReshape || op == Op::kFlatten || op == Op::kSqueeze || op == Op::kUnsqueeze ||
         op == Op::kBitCast;
}

bool PartOfOrder(const ConcatPart& concat, int64_t begin, int64_t count, ConcatPart* part) {
  const int64_t* order = concat.order + begin;
  const int64_t step = count > 1 ? order[1] - order[0] : 1;
  if (step <= 0) return false;
  for (int64_t i = 1; i < count; ++i) {
    if (order[i] - order[i - 1] != step) return false;
  }
  *part = ConcatPart();
  part->whole = concat.whole;
  part->first = order[0];
  part->step = step;
  return true;
}

Status PlaceConcats(const Graph& graph, const ShapeTable& table, const Array<bool>& feature_major,
                    Bump* memory, Array<ConcatPart>* parts) {
  SRT_RETURN_IF_ERROR(parts->resize(graph.tensors.size()));
  for (ConcatPart& part : *parts) part = ConcatPart();
  SRT_RETURN_IF_ERROR(PlaceReordered(graph, table, feature_major, memory, parts));
  Array<uint32_t> writers(parts->allocator());
  SRT_RETURN_IF_ERROR(FindWriters(graph, table, feature_major, &writers));
  for (size_t i = graph.nodes.size(); i-- > 0;) {
    const Node& node = graph.nodes[i];
    if (node.op != Op::kConcat || !MakesPlanes(graph, table, feature_major, node)) continue;
    const uint32_t y = node.outputs[0];
    const int axis = PlaneAxis(table.facts[y].shape, feature_major[y]);
    ChooseParts(graph, table, writers, static_cast<uint32_t>(i), axis, parts);
  }
  return Status::Ok();
}

}  // namespace sparsert
