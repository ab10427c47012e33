// Shape rules of the ops that move data or compute shapes.
#include <cinttypes>
#include <cmath>

#include "graph/infer_rules.h"

namespace sparsert {
namespace {

// Reads axes (input 1) of Squeeze or Unsqueeze, over tensors of `rank` dimensions.
Status ReadAxisSet(const Inference& inf, const Span<int64_t>& axes, int rank, bool unique,
                   bool named[kMaxRank]) {
  for (size_t k = 0; k < axes.size; ++k) {
    int axis = 0;
    SRT_RETURN_IF_ERROR(NormalizeAxis(inf.node, axes[k], rank, &axis));
    if (unique && named[axis]) {
      return NodeError(inf.node, StatusCode::kShape, "axes %s name axis %d twice",
                       ShapeText(axes.data, axes.size).text, axis);
    }
    named[axis] = true;
  }
  return Status::Ok();
}

Status BadTarget(const Inference& inf, const Span<int64_t>& shape) {
  return NodeError(inf.node, StatusCode::kShape, "input %s cannot take the shape %s",
                   inf.Describe(0).text, ShapeText(shape.data, shape.size).text);
}

Status TooManyDims(const Inference& inf, size_t rank) {
  return NodeError(inf.node, StatusCode::kUnsupported,
                   "a tensor of rank %zu; at most %d is supported", rank, kMaxRank);
}

}  // namespace

Status InferConcat(const Inference& inf) {
  Shape out = inf.InShape(0);
  const Attr* attr = inf.node.FindAttr(AttrKey::k_axis);
  if (attr == nullptr) return NodeError(inf.node, StatusCode::kModelFormat, "axis is missing");
  int axis = 0;
  SRT_RETURN_IF_ERROR(
      NormalizeAxis(inf.node, inf.node.IntAttr(AttrKey::k_axis, 0), out.rank, &axis));
  for (size_t i = 1; i < inf.node.inputs.size; ++i) {
    const Shape& x = inf.InShape(i);
    bool fits = x.rank == out.rank && inf.In(i).dtype == inf.In(0).dtype;
    for (int d = 0; fits && d < out.rank; ++d) fits = d == axis || x.dims[d] == out.dims[d];
    if (!fits) {
      return NodeError(inf.node, StatusCode::kShape,
                       "input %s (%s) differs from %s (%s) in more than axis %d",
                       inf.Describe(i).text, DTypeName(inf.In(i).dtype), inf.Describe(0).text,
                       DTypeName(inf.In(0).dtype), axis);
    }
    out.dims[axis] += x.dims[axis];
    if (out.dims[axis] > kMaxElements) {
      return NodeError(inf.node, StatusCode::kShape, "the output is too large");
    }
  }
  return inf.SetOutput(0, inf.In(0).dtype, out);
}

Status InferSplit(const Inference& inf) {
  int axis = 0;
  SRT_RETURN_IF_ERROR(ResolveSplitAxis(inf, &axis));
  Shape out = inf.InShape(0);
  const int64_t dim = out.dims[axis];
  int64_t left = dim;
  for (size_t i = 0; i < inf.node.outputs.size; ++i) {
    SRT_RETURN_IF_ERROR(ResolveSplitSize(inf, axis, i, &out.dims[axis]));
    left -= out.dims[axis];
    if (left < 0) break;
    SRT_RETURN_IF_ERROR(inf.SetOutput(i, inf.In(0).dtype, out));
  }
  if (left != 0) {
    return NodeError(inf.node, StatusCode::kShape,
                     "the sizes of the parts do not add up to the %" PRId64
                     " elements of axis %d of %s",
                     dim, axis, inf.Describe(0).text);
  }
  return Status::Ok();
}

Status InferSlice(const Inference& inf) {
  SliceRange range;
  SRT_RETURN_IF_ERROR(ResolveSlice(inf, &range));
  return inf.SetOutput(0, inf.In(0).dtype, range.out);
}

Status InferReshape(const Inference& inf) {
  const Shape& x = inf.InShape(0);
  Span<int64_t> target;
  SRT_RETURN_IF_ERROR(inf.KnownInts(1, "shape", &target));
  if (target.size > kMaxRank) return TooManyDims(inf, target.size);
  const bool allow_zero = inf.node.IntAttr(AttrKey::k_allowzero, 0) != 0;
  Shape out;
  out.rank = static_cast<int>(target.size);
  int inferred = -1;
  bool has_zero = false;
  int64_t product = 1;
  for (int d = 0; d < out.rank; ++d) {
    int64_t dim = target[static_cast<size_t>(d)];
    if (dim == -1 && inferred < 0) {
      inferred = d;
      continue;
    }
    if (dim == 0 && !allow_zero) {
      if (d >= x.rank) return BadTarget(inf, target);
      dim = x.dims[d];
    } else if (dim == 0) {
      has_zero = true;
    }
    if (dim < 0 || dim > kMaxElements || !MulElements(product, dim, &product)) {
      return BadTarget(inf, target);
    }
    out.dims[d] = dim;
  }
  const int64_t elements = x.elements();
  if (inferred >= 0) {
    if (product == 0 || has_zero || elements % product != 0) return BadTarget(inf, target);
    out.dims[inferred] = elements / product;
  } else if (product != elements) {
    return BadTarget(inf, target);
  }
  return inf.SetOutput(0, inf.In(0).dtype, out);
}

Status InferFlatten(const Inference& inf) {
  const Shape& x = inf.InShape(0);
  const int64_t axis = inf.node.IntAttr(AttrKey::k_axis, 1);
  if (axis < -x.rank || axis > x.rank) {
    return NodeError(inf.node, StatusCode::kShape, "axis %" PRId64 " is out of range for input %s",
                     axis, inf.Describe(0).text);
  }
  const int64_t split = axis < 0 ? axis + x.rank : axis;
  Shape out;
  out.rank = 2;
  out.dims[0] = out.dims[1] = 1;
  for (int d = 0; d < x.rank; ++d) out.dims[d < split ? 0 : 1] *= x.dims[d];
  return inf.SetOutput(0, inf.In(0).dtype, out);
}

Status InferSqueeze(const Inference& inf) {
  const Shape& x = inf.InShape(0);
  bool removed[kMaxRank] = {};
  Span<int64_t> axes;
  if (inf.Has(1)) SRT_RETURN_IF_ERROR(inf.KnownInts(1, "axes", &axes));
  SRT_RETURN_IF_ERROR(ReadAxisSet(inf, axes, x.rank, /*unique=*/false, removed));
  if (axes.empty()) {  // an empty tensor counts as absent, as in ONNX Runtime
    for (int d = 0; d < x.rank; ++d) removed[d] = x.dims[d] == 1;
  }
  Shape out;
  for (int d = 0; d < x.rank; ++d) {
    if (!removed[d]) {
      out.dims[out.rank++] = x.dims[d];
    } else if (x.dims[d] != 1) {
      return NodeError(inf.node, StatusCode::kShape, "axis %d of input %s is not 1", d,
                       inf.Describe(0).text);
    }
  }
  return inf.SetOutput(0, inf.In(0).dtype, out);
}

Status InferUnsqueeze(const Inference& inf) {
  const Shape& x = inf.InShape(0);
  Span<int64_t> axes;
  SRT_RETURN_IF_ERROR(inf.KnownInts(1, "axes", &axes));
  const size_t rank = static_cast<size_t>(x.rank) + axes.size;
  if (rank > kMaxRank) return TooManyDims(inf, rank);
  bool added[kMaxRank] = {};
  SRT_RETURN_IF_ERROR(ReadAxisSet(inf, axes, static_cast<int>(rank), /*unique=*/true, added));
  Shape out;
  out.rank = static_cast<int>(rank);
  int from = 0;
  for (int d = 0; d < out.rank; ++d) out.dims[d] = added[d] ? 1 : x.dims[from++];
  return inf.SetOutput(0, inf.In(0).dtype, out);
}

Status InferTranspose(const Inference& inf) {
  int perm[kMaxRank];
  SRT_RETURN_IF_ERROR(ResolvePermutation(inf, perm));
  const Shape& x = inf.InShape(0);
  Shape out = x;
  for (int d = 0; d < x.rank; ++d) out.dims[d] = x.dims[perm[d]];
  return inf.SetOutput(0, inf.In(0).dtype, out);
}

Status InferExpand(const Inference& inf) {
  Span<int64_t> target;
  SRT_RETURN_IF_ERROR(inf.KnownInts(1, "shape", &target));
  if (target.size > kMaxRank) return TooManyDims(inf, target.size);
  Shape shape;
  shape.rank = static_cast<int>(target.size);
  for (size_t d = 0; d < target.size; ++d) shape.dims[d] = target[d];
  Shape out;
  if (!ShapeWithinLimits(shape) || !BroadcastShapes(inf.InShape(0), shape, &out)) {
    return NodeError(inf.node, StatusCode::kShape, "input %s does not broadcast with the shape %s",
                     inf.Describe(0).text, ShapeText(target.data, target.size).text);
  }
  return inf.SetOutput(0, inf.In(0).dtype, out);
}

Status InferIdentity(const Inference& inf) {
  return inf.SetOutput(0, inf.In(0).dtype, inf.InShape(0));
}

Status InferGather(const Inference& inf) {
  const Shape& x = inf.InShape(0);
  const Shape& index = inf.InShape(1);
  int axis = 0;
  SRT_RETURN_IF_ERROR(NormalizeAxis(inf.node, inf.node.IntAttr(AttrKey::k_axis, 0), x.rank, &axis));
  if (inf.In(1).dtype != DType::kI64 && inf.In(1).dtype != DType::kI32) {
    return NodeError(inf.node, StatusCode::kShape, "indices %s are %s, expected int64 or int32",
                     inf.Describe(1).text, DTypeName(inf.In(1).dtype));
  }
  const int rank = x.rank - 1 + index.rank;
  if (rank > kMaxRank) return TooManyDims(inf, static_cast<size_t>(rank));
  if (inf.In(1).is_known) {
    for (const int64_t i : inf.table.Known(inf.node.inputs[1])) {
      if (i >= -x.dims[axis] && i < x.dims[axis]) continue;
      return NodeError(inf.node, StatusCode::kShape,
                       "index %" PRId64 " is out of range for axis %d of %s", i, axis,
                       inf.Describe(0).text);
    }
  } else if (x.dims[axis] == 0 && index.elements() != 0) {
    return NodeError(inf.node, StatusCode::kShape, "axis %d of %s is empty", axis,
                     inf.Describe(0).text);
  }
  Shape out;
  for (int d = 0; d < axis; ++d) out.dims[out.rank++] = x.dims[d];
  for (int d = 0; d < index.rank; ++d) out.dims[out.rank++] = index.dims[d];
  for (int d = axis + 1; d < x.rank; ++d) out.dims[out.rank++] = x.dims[d];
  return inf.SetOutput(0, inf.In(0).dtype, out);
}

Status InferPad(const Inference& inf) {
  PadRange range;
  SRT_RETURN_IF_ERROR(ResolvePad(inf, &range));
  if (inf.Has(2) && (inf.InShape(2).elements() != 1 || inf.In(2).dtype != inf.In(0).dtype)) {
    return NodeError(inf.node, StatusCode::kShape, "pad value %s (%s) must be one value of type %s",
                     inf.Describe(2).text, DTypeName(inf.In(2).dtype), DTypeName(inf.In(0).dtype));
  }
  return inf.SetOutput(0, inf.In(0).dtype, range.out);
}

Status InferResize(const Inference& inf) {
  ResizeRange range;
  SRT_RETURN_IF_ERROR(ResolveResize(inf, &range));
  return inf.SetOutput(0, inf.In(0).dtype, range.out);
}

void ResolveShapeOp(const NodeView& view, int* start, int* end) {
  const int64_t rank = view.InShape(0).rank;
  int64_t bounds[2] = {view.node.IntAttr(AttrKey::k_start, 0),
                       view.node.IntAttr(AttrKey::k_end, rank)};
  for (int64_t& bound : bounds) {
    if (bound < 0) bound += rank;
    bound = bound < 0 ? 0 : (bound > rank ? rank : bound);
  }
  *start = static_cast<int>(bounds[0]);
  *end = static_cast<int>(bounds[1] < bounds[0] ? bounds[0] : bounds[1]);
}

Status InferShapeOp(const Inference& inf) {
  int start = 0;
  int end = 0;
  ResolveShapeOp(inf, &start, &end);
  Shape out;
  out.rank = 1;
  out.dims[0] = end - start;
  return inf.SetOutput(0, DType::kI64, out);
}

Status InferSize(const Inference& inf) { return inf.SetOutput(0, DType::kI64, Shape()); }

Status InferConstantOfShape(const Inference& inf) {
  Span<int64_t> dims;
  SRT_RETURN_IF_ERROR(inf.KnownInts(0, "shape", &dims));
  if (dims.size > kMaxRank) return TooManyDims(inf, dims.size);
  Shape out;
  out.rank = static_cast<int>(dims.size);
  for (size_t d = 0; d < dims.size; ++d) out.dims[d] = dims[d];
  if (!ShapeWithinLimits(out)) {
    return NodeError(inf.node, StatusCode::kShape, "%s is not a valid shape", ShapeText(out).text);
  }
  // The type of the value: "to" when present, else float32 for a float value or none; an integer
  // value takes the integer type that the file declares for the output, int64 otherwise.
  DType dtype = DType::kF32;
  const Attr* value = inf.node.FindAttr(AttrKey::k_value);
  const int64_t to = inf.node.IntAttr(AttrKey::k_to, 0);
  if (to > 0 && to <= 255 && DTypeSize(static_cast<DType>(to)) != 0) {
    dtype = static_cast<DType>(to);
  } else if (value != nullptr && value->type == 0) {
    const uint32_t output = inf.node.outputs[0];
    const DType declared = output == kNoTensor ? DType::kI64 : inf.graph.tensors[output].dtype;
    dtype = IsIntegerDType(declared) ? declared : DType::kI64;
  }
  return inf.SetOutput(0, dtype, out);
}

int64_t RangeCount(int64_t start, int64_t limit, int64_t delta) {
  const bool rising = delta > 0;
  if (rising ? limit <= start : limit >= start) return 0;
  // Differences of int64 values fit in uint64.
  const uint64_t distance = rising ? static_cast<uint64_t>(limit) - static_cast<uint64_t>(start)
                                   : static_cast<uint64_t>(start) - static_cast<uint64_t>(limit);
  const uint64_t step =
      rising ? static_cast<uint64_t>(delta) : uint64_t{0} - static_cast<uint64_t>(delta);
  const uint64_t count = (distance - 1) / step + 1;
  return count > static_cast<uint64_t>(kMaxElements) ? -1 : static_cast<int64_t>(count);
}

// Number of values of a Range of floats; -1 when it exceeds kMaxElements or is not a number.
static int64_t FloatRangeCount(const float bounds[3]) {
  const double count = ceil((static_cast<double>(bounds[1]) - bounds[0]) / bounds[2]);
  if (!(count <= static_cast<double>(kMaxElements))) return -1;
  return count < 0.0 ? 0 : static_cast<int64_t>(count);
}

Status InferRange(const Inference& inf) {
  int64_t bounds[3] = {};
  float floats[3] = {};
  const char* const names[3] = {"start", "limit", "delta"};
  const bool is_float = inf.In(0).dtype == DType::kF32;
  for (size_t i = 0; i < 3; ++i) {
    if ((!is_float && !IsIntegerDType(inf.In(i).dtype)) || inf.In(i).dtype != inf.In(0).dtype) {
      return NodeError(inf.node, StatusCode::kUnsupported,
                       "%s %s is %s, expected float32 or one integer type", names[i],
                       inf.Describe(i).text, DTypeName(inf.In(i).dtype));
    }
    if (is_float) {
      size_t n = 0;
      float values[kMaxRank];
      SRT_RETURN_IF_ERROR(inf.KnownFloats(i, names[i], values, &n));
      if (n != 1) {
        return NodeError(inf.node, StatusCode::kShape, "%s %s must be one value", names[i],
                         inf.Describe(i).text);
      }
      floats[i] = values[0];
      bounds[i] = values[0] != 0.0f ? 1 : 0;
      continue;
    }
    Span<int64_t> value;
    SRT_RETURN_IF_ERROR(inf.KnownInts(i, names[i], &value));
    if (value.size != 1) {
      return NodeError(inf.node, StatusCode::kShape, "%s %s must be one value", names[i],
                       inf.Describe(i).text);
    }
    bounds[i] = value[0];
  }
  if (bounds[2] == 0) return NodeError(inf.node, StatusCode::kShape, "delta is 0");
  Shape out;
  out.rank = 1;
  out.dims[0] = is_float ? FloatRangeCount(floats) : RangeCount(bounds[0], bounds[1], bounds[2]);
  if (out.dims[0] < 0) {
    return NodeError(inf.node, StatusCode::kShape, "the output is too large");
  }
  return inf.SetOutput(0, inf.In(0).dtype, out);
}

}  // namespace sparsert
