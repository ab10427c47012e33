// PlanBuilder: where tensors lie, and the layout of the arena.
#include <algorithm>
#include <cstdio>
#include <utility>

#include "graph/resolve.h"
#include "plan/builder.h"
#include "plan/choose_layouts.h"
#include "plan/find_views.h"

namespace sparsert {
namespace {

bool SameLayout(const TensorDesc& a, const TensorDesc& b) {
  if (a.dtype != b.dtype || a.shape.rank != b.shape.rank) return false;
  for (int d = 0; d < a.shape.rank; ++d) {
    if (a.shape.dims[d] != b.shape.dims[d] || a.strides[d] != b.strides[d]) return false;
  }
  return true;
}

}  // namespace

TensorDesc PlanBuilder::OwnLayout(uint32_t tensor, bool plain) const {
  const TensorFacts& f = facts(tensor);
  if (feature_major_[tensor]) return FeatureMajorDesc(f.shape);
  TensorDesc desc = PlainDesc(f.dtype, f.shape);
  const bool in_planes = f.dtype == DType::kF32 || is_packed_[tensor];
  if (plain || !in_planes || f.shape.rank < 3 || desc.plane() <= 1) return desc;
  desc.strides[1] = PlaneStride(desc.plane());
  desc.strides[0] = desc.strides[1] * f.shape.dims[1];
  return desc;
}

Status PlanBuilder::NewBuffer(size_t bytes, IoRef* ref) {
  Buffer buffer;
  buffer.bytes = (bytes + 2 * kCacheLine - 1) / kCacheLine * kCacheLine;
  buffer.first = buffer.last = node_index;
  *ref = IoRef();
  ref->kind = IoRef::kArena;
  ref->index = static_cast<uint32_t>(buffers_.size());
  return buffers_.push_back(buffer);
}

Status PlanBuilder::Temporary(size_t bytes, IoRef* ref) { return NewBuffer(bytes, ref); }

Status PlanBuilder::View(uint32_t view, uint32_t of) {
  TensorPlace& to = plan->places[view];
  const TensorPlace& from = plan->places[of];
  const bool is_output = output_of_[view] != kNoTensor;
  const bool is_shared = to.ref.kind == from.ref.kind && to.ref.index == from.ref.index &&
                         to.ref.offset == from.ref.offset && from.ref.kind != IoRef::kConstant;
  if (!is_output && (is_shared || from.desc.is_plain())) {
    if (!is_shared) to.desc = PlainDesc(facts(view).dtype, facts(view).shape);
    to.ref = from.ref;
    snprintf(info().reason, sizeof(info().reason), "a view: shares its input's memory");
    info().compute_format = "view";
    return Status::Ok();
  }
  // The output is row-major; seen under the input's shape it is a plain tensor too.
  if (!to.desc.is_plain()) return Fail(StatusCode::kInternal, "a view must be row-major");
  snprintf(info().reason, sizeof(info().reason), "copies its input row-major");
  return AddCopy(from.desc, from.ref, PlainDesc(facts(of).dtype, facts(of).shape), to.ref);
}

Status PlanBuilder::Plain(uint32_t tensor, IoRef* plain) {
  const TensorPlace& place = plan->places[tensor];
  if (place.desc.is_plain()) {
    *plain = place.ref;
    return Status::Ok();
  }
  const TensorDesc desc = PlainDesc(place.desc.dtype, place.desc.shape);
  SRT_RETURN_IF_ERROR(Temporary(StorageBytes(desc), plain));
  return AddCopy(place.desc, place.ref, desc, *plain);
}

Status PlanBuilder::PlainOutput(uint32_t tensor, IoRef* plain) {
  const TensorPlace& place = plan->places[tensor];
  if (place.desc.is_plain()) {
    *plain = place.ref;
    return Status::Ok();
  }
  return Temporary(StorageBytes(PlainDesc(place.desc.dtype, place.desc.shape)), plain);
}

Status PlanBuilder::FinishPlain(uint32_t tensor, const IoRef& plain) {
  const TensorPlace& place = plan->places[tensor];
  if (place.desc.is_plain()) return Status::Ok();
  return AddCopy(PlainDesc(place.desc.dtype, place.desc.shape), plain, place.desc, place.ref);
}

Status PlanBuilder::PlaceInputs() {
  SRT_RETURN_IF_ERROR(plan->places.resize(graph.tensors.size()));
  SRT_RETURN_IF_ERROR(output_of_.resize(graph.tensors.size()));
  for (uint32_t& output : output_of_) output = kNoTensor;
  for (size_t i = graph.outputs.size; i-- > 0;) {
    output_of_[graph.outputs[i]] = static_cast<uint32_t>(i);
  }
  SRT_RETURN_IF_ERROR(is_packed_.resize(graph.tensors.size()));
  for (bool& packed : is_packed_) packed = false;
  for (const Node& n : graph.nodes) {
    if (n.op < Op::kQuantizePacked) continue;
    is_packed_[n.outputs[0]] = facts(n.outputs[0]).dtype == DType::kU32;
  }
  SRT_RETURN_IF_ERROR(ChooseLayouts(graph, plan->facts, &feature_major_));
  SRT_RETURN_IF_ERROR(
      PlaceConcats(graph, plan->facts, feature_major_, &plan->memory, &concat_parts_));
  for (size_t i = 0; i < graph.inputs.size; ++i) {
    const uint32_t t = graph.inputs[i];
    TensorPlace& place = plan->places[t];
    place.desc = PlainDesc(facts(t).dtype, facts(t).shape);
    place.ref.kind = IoRef::kInput;
    place.ref.index = static_cast<uint32_t>(i);
    place.placed = true;
  }
  return Status::Ok();
}

// Constants and values of shape arithmetic that a step reads while running.
Status PlanBuilder::PlaceConstant(uint32_t t) {
  TensorPlace& place = plan->places[t];
  if (t == kNoTensor || place.placed) return Status::Ok();
  const Tensor& tensor = graph.tensors[t];
  if (!tensor.is_constant && !facts(t).is_known) {
    return Fail(StatusCode::kInternal, "an input has no value");
  }
  Shape shape = facts(t).shape;
  if (tensor.is_constant) {
    shape.rank = tensor.rank;
    for (int d = 0; d < tensor.rank; ++d) shape.dims[d] = tensor.dims[d];
  }
  place.desc = PlainDesc(tensor.is_constant ? tensor.dtype : facts(t).dtype, shape);
  place.ref.kind = IoRef::kConstant;
  SRT_RETURN_IF_ERROR(ConstantData(t, &place.ref.constant));
  place.placed = true;
  return Status::Ok();
}

Status PlanBuilder::FindLastUses() {
  SRT_RETURN_IF_ERROR(last_use_.resize(graph.tensors.size()));
  SRT_RETURN_IF_ERROR(only_reshaped_.resize(graph.tensors.size()));
  for (uint32_t& node_of : last_use_) node_of = 0;
  for (bool& only : only_reshaped_) only = true;
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    const Node& n = graph.nodes[i];
    for (uint32_t t : n.inputs) {
      if (t == kNoTensor) continue;
      last_use_[t] = static_cast<uint32_t>(i);
      only_reshaped_[t] = only_reshaped_[t] && IsReshape(n.op);
    }
  }
  for (uint32_t t : graph.outputs) last_use_[t] = UINT32_MAX;
  return Status::Ok();
}

bool PlanBuilder::HasOneReader(uint32_t y, uint32_t* reader) const {
  if (output_of_[y] != kNoTensor || concat_parts_[y].whole != kNoTensor || feature_major_[y]) {
    return false;
  }
  *reader = last_use_[y];
  for (uint32_t i = node_index + 1; i < *reader; ++i) {
    for (uint32_t t : graph.nodes[i].inputs) {
      if (t == y) return false;
    }
  }
  return *reader > node_index;
}

bool PlanBuilder::UsedLater(const IoRef& arena) const {
  for (size_t t = 0; t < plan->places.size(); ++t) {
    const TensorPlace& place = plan->places[t];
    // A whole has its memory from its first part on.
    if (place.ref.kind == IoRef::kArena && place.ref.index == arena.index &&
        last_use_[t] > node_index) {
      return true;
    }
  }
  return false;
}

// The input whose memory the node's output takes: its kernel reads each element of it just before
// it writes the same element of the output, and nobody reads it later. A residual that is
// overwritten stays in cache, where a second buffer would push it out.
uint32_t PlanBuilder::OverwritableInput(const Node& n) const {
  uint32_t candidates[2] = {kNoTensor, kNoTensor};
  if (n.op == Op::kConv || n.op == Op::kLinear) {
    candidates[0] = n.Input(3);
  } else if (n.op == Op::kQConv) {
    candidates[0] = n.Input(4);
  } else if (n.op == Op::kQConvDynamic) {
    candidates[0] = n.Input(5);
  } else if (n.op == Op::kLayerNormalization || n.op == Op::kRMSNormalization) {
    candidates[0] = n.Input(0);
  } else if (n.op == Op::kUnary || n.op == Op::kBatchNormalization || n.op == Op::kBinary) {
    candidates[0] = n.Input(0);
    if (n.op == Op::kBinary) candidates[1] = n.Input(1);
  }
  const TensorDesc& out = plan->places[n.outputs[0]].desc;
  for (uint32_t t : candidates) {
    if (t == kNoTensor) continue;
    const TensorPlace& place = plan->places[t];
    if (place.ref.kind != IoRef::kArena || !SameLayout(place.desc, out)) continue;
    if (TilingOf(t) != nullptr && output_tiling_.tiles == 0) continue;
    bool apart = !UsedLater(place.ref);
    for (uint32_t other : n.inputs) {
      if (other == kNoTensor) continue;
      const TensorPlace& o = plan->places[other];
      const bool shared = o.ref.kind == IoRef::kArena && o.ref.index == place.ref.index;
      // Elementwise, an operand of the same layout that begins there is read at the same place too.
      const bool same = o.ref.offset == place.ref.offset && SameLayout(o.desc, out);
      const bool product = n.op == Op::kConv || n.op == Op::kLinear || n.op == Op::kQConv ||
                           n.op == Op::kQConvDynamic;
      if (shared && other != t && (product || !same)) apart = false;
      if (other == t && product && other == n.Input(0)) apart = false;
    }
    if (apart) return t;
  }
  return kNoTensor;
}

Status PlanBuilder::PlacePart(uint32_t t) {
  uint32_t whole = t;
  int64_t first = 0;
  int64_t step = 1;
  while (concat_parts_[whole].whole != kNoTensor) {
    const ConcatPart& part = concat_parts_[whole];
    first = part.first + first * part.step;
    step *= part.step;
    whole = part.whole;
  }
  TensorPlace& of = plan->places[whole];
  if (of.ref.kind == IoRef::kNone) {
    of.desc = OwnLayout(whole, false);
    SRT_RETURN_IF_ERROR(NewBuffer(StorageBytes(of.desc), &of.ref));
  }
  TensorPlace& place = plan->places[t];
  place.desc = of.desc;
  place.desc.shape = facts(t).shape;
  const int axis = PlaneAxis(place.desc.shape, feature_major_[t]);
  place.desc.strides[axis] *= step;
  place.ref = Shifted(of.ref, first * of.desc.strides[axis], of.desc.dtype);
  return Status::Ok();
}

bool PlanBuilder::IsJoined(const Node& n) const {
  int axis = 0;
  const Shape& shape = facts(n.outputs[0]).shape;
  const int rank = shape.rank;
  const bool turned = feature_major_[n.outputs[0]];
  if (!NormalizeAxis(n, n.IntAttr(AttrKey::k_axis, 0), rank, &axis).ok() ||
      (axis != 0 && axis != PlaneAxis(shape, turned)) || feature_major_[n.inputs[0]] != turned) {
    return false;
  }
  const TensorDesc& first = desc(n.inputs[0]);
  const IoRef begin = ref(n.inputs[0]);
  if (begin.kind == IoRef::kConstant) return false;
  int64_t at = 0;
  for (uint32_t t : n.inputs) {
    const TensorDesc& d = desc(t);
    const IoRef here = ref(t);
    if (here.kind != begin.kind || here.index != begin.index || d.dtype != first.dtype ||
        here.offset != Shifted(begin, at * first.strides[axis], first.dtype).offset) {
      return false;
    }
    for (int i = 0; i < rank; ++i) {
      if (d.strides[i] != first.strides[i]) return false;
    }
    at += d.shape.dims[axis];
  }
  return true;
}

bool PlanBuilder::TransposedView(const Node& n, TensorDesc* desc) const {
  const uint32_t x = n.inputs[0];
  const uint32_t y = n.outputs[0];
  const TensorPlace& from = plan->places[x];
  int perm[kMaxRank] = {};
  if ((!feature_major_[x] && !feature_major_[y]) || from.ref.kind == IoRef::kConstant ||
      !ResolvePermutation(NodeView(graph, plan->facts, n), perm).ok()) {
    return false;
  }
  *desc = from.desc;
  desc->shape = facts(y).shape;
  for (int d = 0; d < desc->shape.rank; ++d) desc->strides[d] = from.desc.strides[perm[d]];
  return feature_major_[y] ? IsFeatureMajor(*desc) : IsPlanes(*desc);
}

bool PlanBuilder::ReshapedView(const Node& n, TensorDesc* desc) const {
  const uint32_t x = n.inputs[0];
  const uint32_t y = n.outputs[0];
  const TensorPlace& from = plan->places[x];
  const Shape& shape = facts(y).shape;
  const int rank = shape.rank;
  if (from.ref.kind == IoRef::kConstant || n.op == Op::kBitCast) return false;
  if (feature_major_[y]) {
    *desc = FeatureMajorDesc(shape);
    desc->strides[rank - 1] = from.desc.strides[from.desc.shape.rank - 1];
  } else {
    if (feature_major_[x] || from.desc.is_plain() || !IsPlanes(from.desc) || rank < 3 ||
        shape.dims[0] != from.desc.shape.dims[0] || shape.dims[1] != from.desc.shape.dims[1]) {
      return false;
    }
    *desc = PlainDesc(from.desc.dtype, shape);
    desc->strides[1] = from.desc.strides[1];
  }
  desc->strides[0] = from.desc.strides[0];
  return true;
}

Status PlanBuilder::PlaceOutputsOf(const Node& n) {
  for (size_t i = 0; i < n.outputs.size; ++i) {
    const uint32_t t = n.outputs[i];
    if (t == kNoTensor) continue;
    TensorPlace& place = plan->places[t];
    if (place.placed) continue;  // an earlier step writes it
    place.placed = true;
    const uint32_t output = output_of_[t];
    if (output != kNoTensor) {
      place.desc = OwnLayout(t, true);
      place.ref.kind = IoRef::kOutput;
      place.ref.index = output;
      continue;
    }
    if (concat_parts_[t].whole != kNoTensor) {
      SRT_RETURN_IF_ERROR(PlacePart(t));
      continue;
    }
    if (place.ref.kind != IoRef::kNone) continue;  // a whole, of which a part came first
    ViewRange view;
    SRT_RETURN_IF_ERROR(FindView(NodeView(graph, plan->facts, n), i, feature_major_, &view));
    if (view.is_view || (n.op == Op::kConcat && IsJoined(n))) {
      const TensorPlace& from = plan->places[n.inputs[0]];
      place.desc = from.desc;
      place.desc.shape = facts(t).shape;
      place.ref = from.ref;
      const int64_t plane = place.desc.strides[PlaneAxis(place.desc.shape, feature_major_[t])];
      place.ref = Shifted(place.ref, view.image * place.desc.strides[0] + view.plane * plane,
                          place.desc.dtype);
      continue;
    }
    if (n.op == Op::kTranspose && TransposedView(n, &place.desc)) {
      place.ref = ref(n.inputs[0]);
      continue;
    }
    if (IsReshape(n.op) && ReshapedView(n, &place.desc)) {
      place.ref = ref(n.inputs[0]);
      continue;
    }
    // Written row-major where it is read under another shape only, which is then a view.
    place.desc = OwnLayout(t, IsReshape(n.op) || only_reshaped_[t]);
    if (IsReshape(n.op) && plan->places[n.Input(0)].desc.is_plain()) continue;
    const uint32_t overwritten = OverwritableInput(n);
    if (overwritten != kNoTensor) {
      place.ref = plan->places[overwritten].ref;
    } else {
      SRT_RETURN_IF_ERROR(NewBuffer(StorageBytes(place.desc), &place.ref));
    }
  }
  return Status::Ok();
}

Status PlanBuilder::AssignArena() {
  Array<uint32_t> order(buffers_.allocator());
  SRT_RETURN_IF_ERROR(order.resize(buffers_.size()));
  for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<uint32_t>(i);
  std::sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) {
    return buffers_[a].bytes != buffers_[b].bytes ? buffers_[a].bytes > buffers_[b].bytes : a < b;
  });
  // Largest first, each at the lowest offset that is free for its whole life. `placed` is kept in
  // order of offset.
  Array<uint32_t> placed(buffers_.allocator());
  for (uint32_t index : order) {
    Buffer& buffer = buffers_[index];
    size_t offset = 0;
    for (uint32_t other : placed) {
      const Buffer& o = buffers_[other];
      if (o.last < buffer.first || buffer.last < o.first) continue;
      if (offset + buffer.bytes <= o.offset) break;
      offset = std::max(offset, o.offset + o.bytes);
    }
    buffer.offset = offset;
    stage_.tensor_bytes = std::max(stage_.tensor_bytes, offset + buffer.bytes);
    SRT_RETURN_IF_ERROR(placed.push_back(index));
    for (size_t i = placed.size() - 1; i > 0; --i) {
      if (buffers_[placed[i - 1]].offset <= offset) break;
      std::swap(placed[i - 1], placed[i]);
    }
  }
  for (Step& step : plan->steps) {
    for (int i = 0; i < step.io_count; ++i) {
      if (step.io[i].kind == IoRef::kArena) step.io[i].offset += buffers_[step.io[i].index].offset;
    }
  }
  return Status::Ok();
}

}  // namespace sparsert
