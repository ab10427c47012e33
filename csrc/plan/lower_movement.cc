// Lowers the ops that only move data: each is one or more strided copies, or none where the tensors
// were placed so that nothing has to move.
#include <cstdio>
#include <cstring>

#include "base/half.h"
#include "graph/resolve.h"
#include "kernels/gather/gather.h"
#include "kernels/pad/pad.h"
#include "plan/builder.h"

namespace sparsert {
namespace {

bool SamePlace(const IoRef& a, const IoRef& b) {
  return a.kind == b.kind && a.index == b.index && a.constant == b.constant && a.offset == b.offset;
}

void SayView(PlanBuilder* b) {
  b->info().compute_format = "view";
  snprintf(b->info().reason, sizeof(b->info().reason), "a view: shares its input's memory");
}

// Says how many of a node's tensors needed no copy: "inputs", "written in place".
void DescribeShared(PlanBuilder* b, const char* tensors, const char* how, int shared, int count) {
  NodePlan& info = b->info();
  if (shared == count) {
    info.compute_format = "view";
    snprintf(info.reason, sizeof(info.reason), "no copy: its %s are %s", tensors, how);
  } else if (shared > 0) {
    snprintf(info.reason, sizeof(info.reason), "%d of %d %s %s, the others copied", shared, count,
             tensors, how);
  }
}

Status LowerConcat(PlanBuilder* b) {
  const Node& node = *b->node;
  const uint32_t y = node.outputs[0];
  int axis = 0;
  SRT_RETURN_IF_ERROR(
      NormalizeAxis(node, node.IntAttr(AttrKey::k_axis, 0), b->facts(y).shape.rank, &axis));
  int64_t at = 0;
  int shared = 0;
  int count = 0;
  for (uint32_t x : node.inputs) {
    TensorDesc to = b->desc(y);
    to.shape = b->facts(x).shape;
    const int64_t size = to.shape.dims[axis];
    ConcatPart place;
    place.first = at;
    at += size;
    if (to.shape.elements() == 0) continue;
    if (b->concat_part(y).order != nullptr) {
      PartOfOrder(b->concat_part(y), place.first, size, &place);
    }
    const IoRef part = Shifted(b->ref(y), place.first * to.strides[axis], to.dtype);
    to.strides[axis] *= place.step;
    ++count;
    if (SamePlace(b->ref(x), part)) {
      ++shared;
    } else {
      SRT_RETURN_IF_ERROR(b->AddCopy(b->desc(x), b->ref(x), to, part));
    }
  }
  DescribeShared(b, "inputs", "written in place", shared, count);
  return Status::Ok();
}

Status LowerSplit(PlanBuilder* b) {
  const Node& node = *b->node;
  const uint32_t x = node.Input(0);
  const NodeView view(b->graph, b->plan->facts, node);
  int axis = 0;
  SRT_RETURN_IF_ERROR(ResolveSplitAxis(view, &axis));
  int64_t at = 0;
  int shared = 0;
  int count = 0;
  for (size_t i = 0; i < node.outputs.size; ++i) {
    int64_t size = 0;
    SRT_RETURN_IF_ERROR(ResolveSplitSize(view, axis, i, &size));
    const uint32_t y = node.outputs[i];
    TensorDesc from = b->desc(x);
    const IoRef part = Shifted(b->ref(x), at * from.strides[axis], from.dtype);
    at += size;
    if (y == kNoTensor || b->facts(y).shape.elements() == 0) continue;
    ++count;
    from.shape = b->facts(y).shape;
    if (SamePlace(part, b->ref(y))) {
      ++shared;
    } else {
      SRT_RETURN_IF_ERROR(b->AddCopy(from, part, b->desc(y), b->ref(y)));
    }
  }
  DescribeShared(b, "outputs", "views of its input", shared, count);
  return Status::Ok();
}

Status LowerSlice(PlanBuilder* b) {
  const Node& node = *b->node;
  const uint32_t x = node.Input(0);
  const uint32_t y = node.outputs[0];
  SliceRange range;
  SRT_RETURN_IF_ERROR(ResolveSlice(NodeView(b->graph, b->plan->facts, node), &range));
  TensorDesc from = b->desc(x);
  int64_t at = 0;
  for (int d = 0; d < from.shape.rank; ++d) {
    at += range.start[d] * from.strides[d];
    from.strides[d] *= range.step[d];
  }
  from.shape = range.out;
  const IoRef part = Shifted(b->ref(x), at, from.dtype);
  if (from.shape.elements() != 0 && SamePlace(part, b->ref(y))) {
    SayView(b);
    return Status::Ok();
  }
  return b->AddCopy(from, part, b->desc(y), b->ref(y));
}

Status LowerExpand(PlanBuilder* b) {
  const uint32_t x = b->node->Input(0);
  const uint32_t y = b->node->outputs[0];
  const TensorDesc& in = b->desc(x);
  TensorDesc from = in;
  from.shape = b->facts(y).shape;
  const int added = from.shape.rank - in.shape.rank;
  for (int d = 0; d < from.shape.rank; ++d) {
    const bool broadcast = d < added || (in.shape.dims[d - added] == 1 && from.shape.dims[d] != 1);
    from.strides[d] = broadcast ? 0 : in.strides[d - added];
  }
  return b->AddCopy(from, b->ref(x), b->desc(y), b->ref(y));
}

Status LowerTranspose(PlanBuilder* b) {
  const Node& node = *b->node;
  const uint32_t x = node.Input(0);
  const uint32_t y = node.outputs[0];
  int perm[kMaxRank] = {};
  SRT_RETURN_IF_ERROR(ResolvePermutation(NodeView(b->graph, b->plan->facts, node), perm));
  const TensorDesc& in = b->desc(x);
  TensorDesc from = in;
  if (in.shape.elements() != 0 && SamePlace(b->ref(x), b->ref(y))) {
    SayView(b);
    return Status::Ok();
  }
  for (int d = 0; d < in.shape.rank; ++d) {
    from.shape.dims[d] = in.shape.dims[perm[d]];
    from.strides[d] = in.strides[perm[d]];
  }
  return b->AddCopy(from, b->ref(x), b->desc(y), b->ref(y));
}

Status LowerGather(PlanBuilder* b) {
  const Node& node = *b->node;
  if (IsLookup(b->graph, node)) return LowerLookup(b);
  const uint32_t x = node.Input(0);
  const uint32_t indices = node.Input(1);
  const uint32_t y = node.outputs[0];
  if (b->concat_part(x).order != nullptr) {
    b->info().compute_format = "view";
    snprintf(b->info().reason, sizeof(b->info().reason),
             "no copy: the inputs of its Concat are written in this order");
    return Status::Ok();
  }
  int axis = 0;
  SRT_RETURN_IF_ERROR(
      NormalizeAxis(node, node.IntAttr(AttrKey::k_axis, 0), b->facts(x).shape.rank, &axis));
  int64_t* resolved = nullptr;
  if (b->facts(indices).is_known) {
    const Span<int64_t> known = b->plan->facts.Known(indices);
    const int64_t size = b->facts(x).shape.dims[axis];
    resolved = b->plan->memory.Allocate<int64_t>(known.size + 1);
    if (resolved == nullptr) return Status::OutOfMemory("gather indices", known.size * 8);
    SRT_RETURN_IF_ERROR(
        NormalizeIndices(known.data, static_cast<int64_t>(known.size), size, resolved));
  }
  GatherArgs* args = nullptr;
  SRT_RETURN_IF_ERROR(b->NewArgs(&args));
  *args = MakeGatherArgs(b->desc(x), axis, resolved, b->desc(indices), b->desc(y));
  Kernel kernel;
  if (!SelectGather(*args, b->options.isa, &kernel)) {
    return b->Fail(StatusCode::kInternal, "no kernel for these operands");
  }
  const bool at_run_time = resolved == nullptr;
  const IoRef io[] = {b->ref(x), b->ref(y), at_run_time ? b->ref(indices) : IoRef(), FaultRef()};
  return b->AddStep(kernel, args, {io, at_run_time ? size_t{4} : size_t{3}}, GatherItems(*args), 0,
                    static_cast<double>(b->facts(y).shape.elements()) * 0.5);
}

// Dimension d of the output, seen as two: which repetition, and where in it.
Status LowerTile(PlanBuilder* b) {
  const uint32_t x = b->node->Input(0);
  const uint32_t y = b->node->outputs[0];
  TensorDesc from = b->desc(x);
  TensorDesc to = b->desc(y);
  const TensorDesc in = from;
  const TensorDesc out = to;
  from.shape.rank = 0;
  for (int d = 0; d < in.shape.rank; ++d) {
    const int64_t size = in.shape.dims[d];
    const int64_t repeats = size == 0 ? 0 : out.shape.dims[d] / size;
    if (repeats != 1) {
      from.shape.dims[from.shape.rank] = repeats;
      from.strides[from.shape.rank] = 0;
      to.strides[from.shape.rank++] = out.strides[d] * size;
    }
    from.shape.dims[from.shape.rank] = size;
    from.strides[from.shape.rank] = in.strides[d];
    to.strides[from.shape.rank++] = out.strides[d];
  }
  to.shape = from.shape;
  return b->AddCopy(from, b->ref(x), to, b->ref(y));
}

Status LowerPad(PlanBuilder* b) {
  const Node& node = *b->node;
  const uint32_t x = node.Input(0);
  const uint32_t value = node.Input(2);
  const uint32_t y = node.outputs[0];
  PadRange range;
  SRT_RETURN_IF_ERROR(ResolvePad(NodeView(b->graph, b->plan->facts, node), &range));
  PadArgs* args = nullptr;
  SRT_RETURN_IF_ERROR(b->NewArgs(&args));
  const void* fill = nullptr;
  if (value != kNoTensor) SRT_RETURN_IF_ERROR(b->ConstantData(value, &fill));
  *args = MakePadArgs(static_cast<PadMode>(node.IntAttr(AttrKey::k_mode, 0)), b->desc(x),
                      range.begin, range.end, fill, b->desc(y));
  Kernel kernel;
  if (!SelectPad(*args, b->options.isa, &kernel)) {
    return b->Fail(StatusCode::kInternal, "no kernel for these operands");
  }
  const IoRef io[] = {b->ref(x), b->ref(y)};
  return b->AddStep(kernel, args, {io, 2}, PadItems(*args), 0,
                    static_cast<double>(b->facts(y).shape.elements()) * 0.3);
}

// Memory of the plan as a constant.
IoRef PlanConstant(const void* memory) {
  IoRef ref;
  ref.kind = IoRef::kConstant;
  ref.constant = memory;
  return ref;
}

// One element, repeated.
Status LowerConstantOfShape(PlanBuilder* b) {
  const uint32_t y = b->node->outputs[0];
  int64_t* element = b->plan->memory.Allocate<int64_t>(1);
  if (element == nullptr) return Status::OutOfMemory("constant", sizeof(*element));
  const Attr* value = b->node->FindAttr(AttrKey::k_value);
  const float number = value == nullptr   ? 0.0f
                       : value->type == 1 ? value->f
                                          : static_cast<float>(value->i);
  if (b->facts(y).dtype == DType::kF64) {
    const double wide = number;
    memcpy(element, &wide, sizeof(wide));
  } else if (b->facts(y).dtype == DType::kF16) {
    const uint16_t half = FloatToHalf(number);
    memcpy(element, &half, sizeof(half));
  } else {
    SRT_RETURN_IF_ERROR(FillSlot(*b->node, b->facts(y).dtype, element));
  }
  TensorDesc from = b->desc(y);
  for (int64_t& stride : from.strides) stride = 0;
  return b->AddCopy(from, PlanConstant(element), b->desc(y), b->ref(y));
}

Status LowerRange(PlanBuilder* b) {
  const uint32_t y = b->node->outputs[0];
  const TensorDesc plain = PlainDesc(b->facts(y).dtype, b->facts(y).shape);
  const int64_t n = plain.shape.elements();
  const size_t size = DTypeSize(plain.dtype);
  char* values = b->plan->memory.Allocate<char>(static_cast<size_t>(n) * size + 1);
  if (values == nullptr) return Status::OutOfMemory("range", static_cast<size_t>(n) * size);
  const NodeView view(b->graph, b->plan->facts, *b->node);
  for (int64_t i = 0; i < n; ++i) {
    int64_t slot = 0;
    SRT_RETURN_IF_ERROR(RangeSlot(view, i, &slot));
    memcpy(values + static_cast<size_t>(i) * size, &slot, size);  // little-endian
  }
  return b->AddCopy(plain, PlanConstant(values), b->desc(y), b->ref(y));
}

}  // namespace

Status LowerMovement(PlanBuilder* b) {
  snprintf(b->info().reason, sizeof(b->info().reason), "moves data");
  b->info().compute_format = "copy";
  const uint32_t x = b->node->Input(0);
  switch (b->node->op) {
    case Op::kConcat:
      return LowerConcat(b);
    case Op::kSplit:
      return LowerSplit(b);
    case Op::kSlice:
      return LowerSlice(b);
    case Op::kExpand:
      return LowerExpand(b);
    case Op::kTranspose:
      return LowerTranspose(b);
    case Op::kGather:
      return LowerGather(b);
    case Op::kPad:
      return LowerPad(b);
    case Op::kTile:
      return LowerTile(b);
    case Op::kIdentity:
      return b->AddCopy(b->desc(x), b->ref(x), b->desc(b->node->outputs[0]),
                        b->ref(b->node->outputs[0]));
    case Op::kConstantOfShape:
      return LowerConstantOfShape(b);
    case Op::kRange:
      return LowerRange(b);
    default:
      // Shape and Size are folded; reaching this means they were not.
      return b->Fail(StatusCode::kUnsupported,
                     "its value is not known at plan time and it has no run-time kernel");
  }
}

}  // namespace sparsert
