// Shape rules of the ops on packed bytes.
#include <cinttypes>

#include "graph/infer_rules.h"

namespace sparsert {
namespace {

Status RequirePacked(const Inference& inf, size_t i) {
  if (inf.In(i).dtype == DType::kU32 && inf.InShape(i).rank >= 2) return inf.RequireNonEmpty(i);
  return NodeError(inf.node, StatusCode::kShape,
                   "input %s must hold packed bytes: uint32 of rank 2 or more",
                   inf.Describe(i).text);
}

// The weights' channels are their last dimension. QConv: any groups of whole packed planes.
// QDepthwise: one input channel for each output channel.
Status CheckGroups(const Inference& inf) {
  const Shape& x = inf.InShape(0);
  const Shape& w = inf.InShape(1);
  const bool depthwise = IsQuantisedDepthwise(inf.node, w.dims, w.rank);
  const int64_t group = depthwise ? w.dims[0] : inf.node.IntAttr(AttrKey::k_group, 1);
  if (group < 1 || w.dims[0] % group != 0 || (depthwise && w.dims[w.rank - 1] != 1)) {
    return NodeError(inf.node, StatusCode::kShape, "weights %s do not fall into %" PRId64 " groups",
                     inf.Describe(1).text, group);
  }
  if (!depthwise && group > 1 && (w.dims[w.rank - 1] % 4 != 0 || w.dims[0] / group % 4 != 0)) {
    return NodeError(inf.node, StatusCode::kUnsupported,
                     "groups of weights %s are no multiples of four channels",
                     inf.Describe(1).text);
  }
  int64_t channels = 0;
  if (!MulElements(w.dims[w.rank - 1], group, &channels) || x.dims[1] != PackedPlanes(channels)) {
    return NodeError(inf.node, StatusCode::kShape,
                     "input %s has %" PRId64 " packed planes, weights %s need %" PRId64,
                     inf.Describe(0).text, x.dims[1], inf.Describe(1).text, PackedPlanes(channels));
  }
  return Status::Ok();
}

}  // namespace

Status InferQuantizePacked(const Inference& inf) {
  SRT_RETURN_IF_ERROR(inf.RequireF32(0));
  SRT_RETURN_IF_ERROR(inf.RequireNonEmpty(0));
  Shape out = inf.InShape(0);
  if (out.rank < 2) {
    return NodeError(inf.node, StatusCode::kShape, "input %s must have rank 2 or more",
                     inf.Describe(0).text);
  }
  out.dims[1] = PackedPlanes(out.dims[1]);
  return inf.SetOutput(0, DType::kU32, out);
}

Status InferQuantizeDynamic(const Inference& inf) {
  SRT_RETURN_IF_ERROR(InferQuantizePacked(inf));
  Shape params;
  params.rank = 1;
  params.dims[0] = 2;
  return inf.SetOutput(1, DType::kF32, params);
}

Status InferDequantizePacked(const Inference& inf) {
  SRT_RETURN_IF_ERROR(RequirePacked(inf, 0));
  Shape out = inf.InShape(0);
  const int64_t channels = inf.node.IntAttr(AttrKey::k_channels, 0);
  if (PackedPlanes(channels) != out.dims[1]) {
    return NodeError(inf.node, StatusCode::kShape,
                     "input %s does not hold %" PRId64 " channels by four", inf.Describe(0).text,
                     channels);
  }
  out.dims[1] = channels;
  return inf.SetOutput(0, DType::kF32, out);
}

Status InferQuantisedConv(const Inference& inf) {
  SRT_RETURN_IF_ERROR(RequirePacked(inf, 0));
  SRT_RETURN_IF_ERROR(inf.RequireConstant(1, "weights"));
  SRT_RETURN_IF_ERROR(inf.RequireConstant(2, "scales"));
  const Shape& x = inf.InShape(0);
  const Shape& w = inf.InShape(1);
  if (inf.In(1).dtype != DType::kI8 || x.rank < 3 || x.rank > 4 || w.rank != x.rank) {
    return NodeError(inf.node, StatusCode::kShape,
                     "input %s and int8 weights %s must have the same rank, 3 or 4",
                     inf.Describe(0).text, inf.Describe(1).text);
  }
  SRT_RETURN_IF_ERROR(CheckGroups(inf));
  Window window;
  SRT_RETURN_IF_ERROR(
      ResolveWindow(inf.node, x, {w.dims + 1, static_cast<size_t>(w.rank - 2)}, &window));
  const bool at_run = inf.node.op == Op::kQConvDynamic;
  if (at_run) {
    SRT_RETURN_IF_ERROR(inf.RequireF32(3));
    const Shape& params = inf.InShape(3);
    if (params.rank != 1 || params.dims[0] != 2) {
      return NodeError(inf.node, StatusCode::kShape, "input %s must be a scale and a zero point",
                       inf.Describe(3).text);
    }
  }
  const auto to = at_run ? DType::kF32 : static_cast<DType>(inf.node.IntAttr(AttrKey::k_to, 0));
  const size_t residual = at_run ? 5 : 4;
  const Shape out =
      WindowOutput(x, to == DType::kF32 ? w.dims[0] : PackedPlanes(w.dims[0]), window);
  if (inf.Has(residual) &&
      (inf.In(residual).dtype != to || !SameShape(inf.InShape(residual), out))) {
    return NodeError(inf.node, StatusCode::kShape,
                     "residual %s must have the output's type and shape %s",
                     inf.Describe(residual).text, ShapeText(out).text);
  }
  return inf.SetOutput(0, to, out);
}

Status InferQuantisedAdd(const Inference& inf) {
  SRT_RETURN_IF_ERROR(RequirePacked(inf, 0));
  SRT_RETURN_IF_ERROR(RequirePacked(inf, 1));
  if (!SameShape(inf.InShape(0), inf.InShape(1))) {
    return NodeError(inf.node, StatusCode::kShape, "inputs %s and %s differ in shape",
                     inf.Describe(0).text, inf.Describe(1).text);
  }
  return inf.SetOutput(0, DType::kU32, inf.InShape(0));
}

Status InferQuantisedPool(const Inference& inf) {
  SRT_RETURN_IF_ERROR(RequirePacked(inf, 0));
  Shape out = inf.InShape(0);
  const Span<int64_t> kernel = inf.node.IntsAttr(AttrKey::k_kernel_shape);
  if (kernel.empty()) {  // global
    for (int d = 2; d < out.rank; ++d) out.dims[d] = 1;
    return inf.SetOutput(0, DType::kU32, out);
  }
  Window window;
  SRT_RETURN_IF_ERROR(ResolveWindow(inf.node, out, kernel, &window));
  return inf.SetOutput(0, DType::kU32, WindowOutput(out, out.dims[1], window));
}

Status InferLookup(const Inference& inf) {
  SRT_RETURN_IF_ERROR(RequirePacked(inf, 0));
  SRT_RETURN_IF_ERROR(inf.RequireConstant(1, "table"));
  return inf.SetOutput(0, DType::kU32, inf.InShape(0));
}

Status InferQuantisedElementwise(const Inference& inf) {
  SRT_RETURN_IF_ERROR(RequirePacked(inf, 0));
  SRT_RETURN_IF_ERROR(inf.RequireConstant(1, "scales"));
  if (inf.Has(2)) SRT_RETURN_IF_ERROR(inf.RequireConstant(2, "bias"));
  const Shape& x = inf.InShape(0);
  Shape floats = x;
  floats.dims[1] = inf.node.IntAttr(AttrKey::k_channels, 0);
  if (PackedPlanes(floats.dims[1]) != x.dims[1]) {
    return NodeError(inf.node, StatusCode::kShape,
                     "input %s does not hold %" PRId64 " channels by four", inf.Describe(0).text,
                     floats.dims[1]);
  }
  if (inf.Has(3)) {
    const bool is_float = inf.In(3).dtype == DType::kF32;
    if ((!is_float && inf.In(3).dtype != DType::kU32) ||
        !SameShape(inf.InShape(3), is_float ? floats : x)) {
      return NodeError(inf.node, StatusCode::kShape,
                       "residual %s must be packed as the input is, or f32 of shape %s",
                       inf.Describe(3).text, ShapeText(floats).text);
    }
  }
  const auto to = static_cast<DType>(inf.node.IntAttr(AttrKey::k_to, 0));
  return inf.SetOutput(0, to, to == DType::kF32 ? floats : x);
}

Status InferQuantisedAttention(const Inference& inf) {
  for (size_t i = 0; i < 3; ++i) {
    SRT_RETURN_IF_ERROR(RequirePacked(inf, i));
    if (inf.InShape(i).rank != 3) {
      return NodeError(inf.node, StatusCode::kShape, "input %s must have rank 3",
                       inf.Describe(i).text);
    }
  }
  SRT_RETURN_IF_ERROR(inf.RequireConstant(3, "steps"));
  const Shape& q = inf.InShape(0);
  const Shape& k = inf.InShape(1);
  const Shape& v = inf.InShape(2);
  const int64_t heads = inf.node.IntAttr(AttrKey::k_heads, 1);
  if (q.dims[0] != k.dims[0] || q.dims[0] != v.dims[0] || q.dims[1] != k.dims[1] ||
      k.dims[2] != v.dims[2] || q.dims[1] % heads != 0 || v.dims[1] % heads != 0) {
    return NodeError(inf.node, StatusCode::kShape,
                     "inputs %s, %s and %s are no queries, keys and values of %" PRId64 " heads",
                     inf.Describe(0).text, inf.Describe(1).text, inf.Describe(2).text, heads);
  }
  if (inf.Has(4)) {
    Shape scores = q;
    scores.rank = 4;
    scores.dims[1] = heads;
    scores.dims[3] = k.dims[2];
    Shape together;
    SRT_RETURN_IF_ERROR(inf.RequireF32(4));
    if (!BroadcastShapes(inf.InShape(4), scores, &together) || !SameShape(together, scores)) {
      return NodeError(inf.node, StatusCode::kShape, "mask %s does not broadcast to scores %s",
                       inf.Describe(4).text, ShapeText(scores).text);
    }
  }
  const auto to = static_cast<DType>(inf.node.IntAttr(AttrKey::k_to, 0));
  Shape out = v;
  out.dims[2] = q.dims[2];
  if (to == DType::kF32 && !MulElements(v.dims[1], 4, &out.dims[1])) {
    return NodeError(inf.node, StatusCode::kShape, "the result is too large");
  }
  return inf.SetOutput(0, to, out);
}

}  // namespace sparsert
