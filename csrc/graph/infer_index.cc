// Shape rules of the ops that find, pick or scatter elements, and of those along one axis.
#include <cinttypes>

#include "graph/infer_rules.h"

namespace sparsert {
namespace {

Status AxisOf(const Inference& inf, int64_t fallback, int* axis) {
  return NormalizeAxis(inf.node, inf.node.IntAttr(AttrKey::k_axis, fallback), inf.InShape(0).rank,
                       axis);
}

// Numbers that are compared and added up.
Status RequireNumber(const Inference& inf, size_t i) {
  const DType dtype = inf.In(i).dtype;
  if (dtype != DType::kBool && dtype != DType::kF16 && dtype != DType::kUndefined) {
    return Status::Ok();
  }
  return NodeError(inf.node, StatusCode::kUnsupported, "input %s is %s, expected a number",
                   inf.Describe(i).text, DTypeName(dtype));
}

Status RequireIndices(const Inference& inf, size_t i) {
  if (inf.In(i).dtype == DType::kI64 || inf.In(i).dtype == DType::kI32) return Status::Ok();
  return NodeError(inf.node, StatusCode::kShape, "indices %s are %s, expected int64 or int32",
                   inf.Describe(i).text, DTypeName(inf.In(i).dtype));
}

Status OneKnownInt(const Inference& inf, size_t i, const char* what, int64_t* value) {
  Span<int64_t> values;
  SRT_RETURN_IF_ERROR(inf.KnownInts(i, what, &values));
  if (values.size != 1) {
    return NodeError(inf.node, StatusCode::kShape, "%s %s must be one value", what,
                     inf.Describe(i).text);
  }
  *value = values[0];
  return Status::Ok();
}

Status DoNotFit(const Inference& inf, size_t i) {
  return NodeError(inf.node, StatusCode::kShape, "input %s does not fit input %s",
                   inf.Describe(i).text, inf.Describe(0).text);
}

// The indices of GatherElements and ScatterElements: as large as x at most, but for the axis.
Status CheckElementIndices(const Inference& inf) {
  const Shape& x = inf.InShape(0);
  const Shape& indices = inf.InShape(1);
  int axis = 0;
  SRT_RETURN_IF_ERROR(AxisOf(inf, 0, &axis));
  SRT_RETURN_IF_ERROR(RequireIndices(inf, 1));
  if (indices.rank != x.rank) return DoNotFit(inf, 1);
  for (int d = 0; d < x.rank; ++d) {
    if (d != axis && indices.dims[d] > x.dims[d]) return DoNotFit(inf, 1);
  }
  return Status::Ok();
}

// What is left of x behind the dimensions that tuples of indices name.
Status TupleDepth(const Inference& inf, int64_t batch_dims, int* depth) {
  const Shape& x = inf.InShape(0);
  const Shape& indices = inf.InShape(1);
  SRT_RETURN_IF_ERROR(RequireIndices(inf, 1));
  if (indices.rank < 1 || x.rank < 1 || batch_dims >= indices.rank || batch_dims >= x.rank) {
    return DoNotFit(inf, 1);
  }
  const int64_t named = indices.dims[indices.rank - 1];
  if (named < 1 || named > x.rank - batch_dims) return DoNotFit(inf, 1);
  for (int d = 0; d < batch_dims; ++d) {
    if (indices.dims[d] != x.dims[d]) return DoNotFit(inf, 1);
  }
  *depth = static_cast<int>(named);
  return Status::Ok();
}

Status CheckReduction(const Inference& inf) {
  if (inf.In(2).dtype != inf.In(0).dtype) {
    return NodeError(inf.node, StatusCode::kShape, "updates %s are %s, expected %s",
                     inf.Describe(2).text, DTypeName(inf.In(2).dtype), DTypeName(inf.In(0).dtype));
  }
  return inf.node.IntAttr(AttrKey::k_reduction, 0) == 0 ? Status::Ok() : RequireNumber(inf, 0);
}

}  // namespace

Status InferArgReduce(const Inference& inf) {
  SRT_RETURN_IF_ERROR(RequireNumber(inf, 0));
  const Shape& x = inf.InShape(0);
  int axis = 0;
  SRT_RETURN_IF_ERROR(AxisOf(inf, 0, &axis));
  if (x.dims[axis] == 0) {
    return NodeError(inf.node, StatusCode::kShape, "axis %d of input %s is empty", axis,
                     inf.Describe(0).text);
  }
  const bool keep = inf.node.IntAttr(AttrKey::k_keepdims, 1) != 0;
  Shape out;
  for (int d = 0; d < x.rank; ++d) {
    if (d != axis) out.dims[out.rank++] = x.dims[d];
    if (d == axis && keep) out.dims[out.rank++] = 1;
  }
  return inf.SetOutput(0, DType::kI64, out);
}

Status InferTopK(const Inference& inf) {
  SRT_RETURN_IF_ERROR(RequireNumber(inf, 0));
  Shape out = inf.InShape(0);
  int axis = 0;
  int64_t k = 0;
  SRT_RETURN_IF_ERROR(AxisOf(inf, -1, &axis));
  SRT_RETURN_IF_ERROR(OneKnownInt(inf, 1, "k", &k));
  if (k < 0 || k > out.dims[axis]) {
    return NodeError(inf.node, StatusCode::kShape,
                     "k is %" PRId64 ", but axis %d of input %s has %" PRId64 " elements", k, axis,
                     inf.Describe(0).text, out.dims[axis]);
  }
  out.dims[axis] = k;
  SRT_RETURN_IF_ERROR(inf.SetOutput(0, inf.In(0).dtype, out));
  return inf.node.outputs.size > 1 ? inf.SetOutput(1, DType::kI64, out) : Status::Ok();
}

Status InferGatherElements(const Inference& inf) {
  SRT_RETURN_IF_ERROR(CheckElementIndices(inf));
  return inf.SetOutput(0, inf.In(0).dtype, inf.InShape(1));
}

Status InferGatherNd(const Inference& inf) {
  const int64_t batch_dims = inf.node.IntAttr(AttrKey::k_batch_dims, 0);
  int depth = 0;
  SRT_RETURN_IF_ERROR(TupleDepth(inf, batch_dims, &depth));
  const Shape& x = inf.InShape(0);
  const Shape& indices = inf.InShape(1);
  const int first = static_cast<int>(batch_dims) + depth;
  Shape out;
  if (indices.rank - 1 + x.rank - first > kMaxRank) {
    return NodeError(inf.node, StatusCode::kUnsupported, "the output has more than %d dimensions",
                     kMaxRank);
  }
  for (int d = 0; d + 1 < indices.rank; ++d) out.dims[out.rank++] = indices.dims[d];
  for (int d = first; d < x.rank; ++d) out.dims[out.rank++] = x.dims[d];
  return inf.SetOutput(0, inf.In(0).dtype, out);
}

Status InferScatterElements(const Inference& inf) {
  SRT_RETURN_IF_ERROR(CheckElementIndices(inf));
  SRT_RETURN_IF_ERROR(CheckReduction(inf));
  if (!SameShape(inf.InShape(1), inf.InShape(2))) return DoNotFit(inf, 2);
  return inf.SetOutput(0, inf.In(0).dtype, inf.InShape(0));
}

Status InferScatterNd(const Inference& inf) {
  int depth = 0;
  SRT_RETURN_IF_ERROR(TupleDepth(inf, 0, &depth));
  SRT_RETURN_IF_ERROR(CheckReduction(inf));
  const Shape& x = inf.InShape(0);
  const Shape& indices = inf.InShape(1);
  const Shape& updates = inf.InShape(2);
  const int tuples = indices.rank - 1;
  bool fits = updates.rank == tuples + x.rank - depth;
  for (int d = 0; fits && d < updates.rank; ++d) {
    fits = updates.dims[d] == (d < tuples ? indices.dims[d] : x.dims[d - tuples + depth]);
  }
  if (!fits) return DoNotFit(inf, 2);
  return inf.SetOutput(0, inf.In(0).dtype, x);
}

Status InferOneHot(const Inference& inf) {
  SRT_RETURN_IF_ERROR(RequireNumber(inf, 0));
  const Shape& x = inf.InShape(0);
  if (x.rank == kMaxRank) {
    return NodeError(inf.node, StatusCode::kUnsupported, "the output has more than %d dimensions",
                     kMaxRank);
  }
  int axis = 0;
  int64_t depth = 0;
  SRT_RETURN_IF_ERROR(
      NormalizeAxis(inf.node, inf.node.IntAttr(AttrKey::k_axis, -1), x.rank + 1, &axis));
  if (inf.In(1).dtype == DType::kF32) {  // ONNX allows it
    float values[kMaxRank];
    size_t n = 0;
    SRT_RETURN_IF_ERROR(inf.KnownFloats(1, "depth", values, &n));
    depth = n == 1 && values[0] >= 0.0f && values[0] < 1e9f ? static_cast<int64_t>(values[0]) : -1;
  } else {
    SRT_RETURN_IF_ERROR(OneKnownInt(inf, 1, "depth", &depth));
  }
  if (depth < 0 || depth > kMaxElements || inf.InShape(2).elements() != 2) {
    return NodeError(inf.node, StatusCode::kShape,
                     "depth is %" PRId64 ", and values %s must be off and on", depth,
                     inf.Describe(2).text);
  }
  Shape out;
  out.rank = x.rank + 1;
  for (int d = 0, from = 0; d < out.rank; ++d) out.dims[d] = d == axis ? depth : x.dims[from++];
  return inf.SetOutput(0, inf.In(2).dtype, out);
}

Status InferCumulate(const Inference& inf) {
  SRT_RETURN_IF_ERROR(RequireNumber(inf, 0));
  int64_t attr = 0;
  int axis = 0;
  SRT_RETURN_IF_ERROR(OneKnownInt(inf, 1, "axis", &attr));
  SRT_RETURN_IF_ERROR(NormalizeAxis(inf.node, attr, inf.InShape(0).rank, &axis));
  return inf.SetOutput(0, inf.In(0).dtype, inf.InShape(0));
}

Status InferTrilu(const Inference& inf) {
  int64_t k = 0;
  if (inf.Has(1)) SRT_RETURN_IF_ERROR(OneKnownInt(inf, 1, "k", &k));
  if (inf.InShape(0).rank < 2) {
    return NodeError(inf.node, StatusCode::kShape, "input %s must have rank 2 or more",
                     inf.Describe(0).text);
  }
  return inf.SetOutput(0, inf.In(0).dtype, inf.InShape(0));
}

Status InferTile(const Inference& inf) {
  Shape out = inf.InShape(0);
  Span<int64_t> repeats;
  SRT_RETURN_IF_ERROR(inf.KnownInts(1, "repeats", &repeats));
  if (repeats.size != static_cast<size_t>(out.rank)) return DoNotFit(inf, 1);
  int dims = out.rank;
  for (int d = 0; d < out.rank; ++d) {
    const int64_t times = repeats[static_cast<size_t>(d)];
    if (times < 0 || times > kMaxElements || !MulElements(out.dims[d], times, &out.dims[d])) {
      return DoNotFit(inf, 1);
    }
    if (times != 1) ++dims;
  }
  if (dims > kMaxRank) {
    return NodeError(inf.node, StatusCode::kUnsupported,
                     "input %s is repeated along too many dimensions", inf.Describe(0).text);
  }
  return inf.SetOutput(0, inf.In(0).dtype, out);
}

Status InferBitCast(const Inference& inf) {
  const int64_t to = inf.node.IntAttr(AttrKey::k_to, 0);
  const DType dtype = static_cast<DType>(to);
  if (to < 0 || to > 255 || DTypeSize(dtype) == 0 ||
      DTypeSize(dtype) != DTypeSize(inf.In(0).dtype)) {
    return NodeError(inf.node, StatusCode::kUnsupported, "cannot see input %s as dtype %" PRId64,
                     inf.Describe(0).text, to);
  }
  return inf.SetOutput(0, dtype, inf.InShape(0));
}

}  // namespace sparsert
