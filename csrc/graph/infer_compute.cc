// Shape rules of the ops that compute: products, element-wise functions, reductions.
#include <cinttypes>

#include "graph/infer_rules.h"

namespace sparsert {
namespace {

Status CheckFn(const Inference& inf, int64_t count, const char* family, int64_t* fn) {
  *fn = inf.node.IntAttr(AttrKey::k_fn, -1);
  if (*fn >= 0 && *fn < count) return Status::Ok();
  return NodeError(inf.node, StatusCode::kModelFormat, "%s function %" PRId64 " is unknown", family,
                   *fn);
}

Status CheckVector(const Inference& inf, size_t i, const char* what, int64_t size) {
  SRT_RETURN_IF_ERROR(inf.RequireF32(i));
  SRT_RETURN_IF_ERROR(inf.RequireConstant(i, what));
  const Shape& shape = inf.InShape(i);
  if (shape.rank == 1 && shape.dims[0] == size) return Status::Ok();
  return NodeError(inf.node, StatusCode::kShape, "%s %s must have shape [%" PRId64 "]", what,
                   inf.Describe(i).text, size);
}

}  // namespace

Status CheckBias(const Inference& inf, int64_t channels) {
  return inf.Has(2) ? CheckVector(inf, 2, "bias", channels) : Status::Ok();
}

Status CheckResidual(const Inference& inf, const Shape& out) {
  if (!inf.Has(3)) return Status::Ok();
  SRT_RETURN_IF_ERROR(inf.RequireF32(3));
  if (SameShape(inf.InShape(3), out)) return Status::Ok();
  return NodeError(inf.node, StatusCode::kShape, "residual %s must have the output's shape %s",
                   inf.Describe(3).text, ShapeText(out).text);
}

Status InferLinear(const Inference& inf) {
  SRT_RETURN_IF_ERROR(inf.RequireWeighted());
  const Shape& x = inf.InShape(0);
  const Shape& w = inf.InShape(1);
  if (w.rank != 2 || x.rank < 1) {
    return NodeError(inf.node, StatusCode::kShape,
                     "weights %s must have rank 2 and input %s rank 1 or more",
                     inf.Describe(1).text, inf.Describe(0).text);
  }
  if (x.dims[x.rank - 1] != w.dims[1]) {
    return NodeError(inf.node, StatusCode::kShape,
                     "the last dimension of input %s must be %" PRId64
                     ", the columns of weights %s",
                     inf.Describe(0).text, w.dims[1], inf.Describe(1).text);
  }
  Shape out = x;
  out.dims[x.rank - 1] = w.dims[0];
  SRT_RETURN_IF_ERROR(CheckBias(inf, w.dims[0]));
  SRT_RETURN_IF_ERROR(CheckResidual(inf, out));
  return inf.SetOutput(0, DType::kF32, out);
}

Status InferBatchNormalization(const Inference& inf) {
  SRT_RETURN_IF_ERROR(inf.RequireF32(0));
  const Shape& x = inf.InShape(0);
  if (x.rank < 2) {
    return NodeError(inf.node, StatusCode::kShape, "input %s must have rank 2 or more",
                     inf.Describe(0).text);
  }
  SRT_RETURN_IF_ERROR(CheckVector(inf, 1, "scale", x.dims[1]));
  SRT_RETURN_IF_ERROR(CheckVector(inf, 2, "shift", x.dims[1]));
  return inf.SetOutput(0, DType::kF32, x);
}

Status InferUnary(const Inference& inf) {
  int64_t fn = 0;
  SRT_RETURN_IF_ERROR(CheckFn(inf, kUnaryFns, "unary", &fn));
  return inf.SetOutput(0, inf.In(0).dtype, inf.InShape(0));
}

Status InferPRelu(const Inference& inf) {
  SRT_RETURN_IF_ERROR(inf.RequireF32(0));
  SRT_RETURN_IF_ERROR(inf.RequireF32(1));
  SRT_RETURN_IF_ERROR(inf.RequireConstant(1, "slope"));
  Shape out;
  if (!BroadcastShapes(inf.InShape(0), inf.InShape(1), &out) || !SameShape(out, inf.InShape(0))) {
    return NodeError(inf.node, StatusCode::kShape, "slope %s does not broadcast to input %s",
                     inf.Describe(1).text, inf.Describe(0).text);
  }
  return inf.SetOutput(0, DType::kF32, out);
}

Status InferBinary(const Inference& inf) {
  int64_t fn = 0;
  SRT_RETURN_IF_ERROR(CheckFn(inf, static_cast<int64_t>(BinaryFn::kCount), "binary", &fn));
  const DType a = inf.In(0).dtype;
  const DType b = inf.In(1).dtype;
  // Pow alone lets its operands differ; the result has the type of the first.
  if (a != b && fn != static_cast<int64_t>(BinaryFn::kPow)) {
    return NodeError(inf.node, StatusCode::kShape, "inputs %s and %s are %s and %s, expected one",
                     inf.Describe(0).text, inf.Describe(1).text, DTypeName(a), DTypeName(b));
  }
  const bool floats = fn <= static_cast<int64_t>(BinaryFn::kFmod);
  if ((a == DType::kF32 && !floats) || (a != DType::kF32 && b != a)) {
    return NodeError(inf.node, StatusCode::kUnsupported, "inputs %s and %s are %s and %s",
                     inf.Describe(0).text, inf.Describe(1).text, DTypeName(a), DTypeName(b));
  }
  Shape out;
  if (!BroadcastShapes(inf.InShape(0), inf.InShape(1), &out)) {
    return NodeError(inf.node, StatusCode::kShape, "inputs %s and %s do not broadcast",
                     inf.Describe(0).text, inf.Describe(1).text);
  }
  return inf.SetOutput(0, a, out);
}

Status InferReduce(const Inference& inf) {
  int64_t fn = 0;
  SRT_RETURN_IF_ERROR(CheckFn(inf, static_cast<int64_t>(ReduceFn::kCount), "reduce", &fn));
  bool reduced[kMaxRank];
  SRT_RETURN_IF_ERROR(ResolveReducedAxes(inf, reduced));
  const Shape& x = inf.InShape(0);
  const bool keep = inf.node.IntAttr(AttrKey::k_keepdims, 1) != 0;
  Shape out;
  for (int d = 0; d < x.rank; ++d) {
    if (!reduced[d]) out.dims[out.rank++] = x.dims[d];
    if (reduced[d] && keep) out.dims[out.rank++] = 1;
  }
  return inf.SetOutput(0, inf.In(0).dtype, out);
}

Status InferSoftmax(const Inference& inf) {
  SRT_RETURN_IF_ERROR(inf.RequireF32(0));
  int axis = 0;
  SRT_RETURN_IF_ERROR(
      NormalizeAxis(inf.node, inf.node.IntAttr(AttrKey::k_axis, -1), inf.InShape(0).rank, &axis));
  return inf.SetOutput(0, DType::kF32, inf.InShape(0));
}

Status InferCast(const Inference& inf) {
  const int64_t to = inf.node.IntAttr(AttrKey::k_to, 0);
  if (to < 0 || to > 255 || DTypeSize(static_cast<DType>(to)) == 0) {
    return NodeError(inf.node, StatusCode::kUnsupported, "cannot cast to dtype %" PRId64, to);
  }
  return inf.SetOutput(0, static_cast<DType>(to), inf.InShape(0));
}

Status InferMatMul(const Inference& inf) {
  SRT_RETURN_IF_ERROR(inf.RequireF32(0));
  SRT_RETURN_IF_ERROR(inf.RequireF32(1));
  MatMulSizes sizes;
  SRT_RETURN_IF_ERROR(ResolveMatMul(inf, &sizes));
  return inf.SetOutput(0, DType::kF32, sizes.out);
}

Status InferAttention(const Inference& inf) {
  for (size_t i = 0; i < 4; ++i) {
    if (inf.Has(i)) SRT_RETURN_IF_ERROR(inf.RequireF32(i));
  }
  AttentionSizes sizes;
  SRT_RETURN_IF_ERROR(ResolveAttention(inf, &sizes));
  return inf.SetOutput(0, DType::kF32, sizes.out);
}

namespace {

// Input i of a Recurrent: absent, or float32 of the shape.
Status CheckStates(const Inference& inf, size_t i, const Shape& shape) {
  if (!inf.Has(i)) return Status::Ok();
  SRT_RETURN_IF_ERROR(inf.RequireF32(i));
  if (SameShape(inf.InShape(i), shape)) return Status::Ok();
  return NodeError(inf.node, StatusCode::kShape, "input %s must have the shape %s",
                   inf.Describe(i).text, ShapeText(shape).text);
}

Shape ShapeOf(int rank, int64_t first, int64_t second) {
  Shape shape;
  shape.rank = rank;
  shape.dims[0] = first;
  shape.dims[1] = second;
  return shape;
}

// The functions of a Recurrent's gates, as many as its cell has.
Status CheckGateFunctions(const Inference& inf, size_t expected) {
  const Span<int64_t> functions = inf.node.IntsAttr(AttrKey::k_activations);
  if (functions.size != expected) {
    return NodeError(inf.node, StatusCode::kModelFormat, "%zu activations, expected %zu",
                     functions.size, expected);
  }
  for (int64_t fn : functions) {
    if (fn < 1 || fn >= static_cast<int64_t>(UnaryFn::kCount)) {
      return NodeError(inf.node, StatusCode::kUnsupported, "activation %" PRId64, fn);
    }
  }
  return Status::Ok();
}

}  // namespace

Status InferRecurrent(const Inference& inf) {
  SRT_RETURN_IF_ERROR(inf.RequireF32(0));
  SRT_RETURN_IF_ERROR(inf.RequireF32(1));
  for (const size_t i : {size_t{1}, size_t{2}, size_t{3}, size_t{7}, size_t{8}}) {
    if (inf.Has(i)) SRT_RETURN_IF_ERROR(inf.RequireConstant(i, "weights"));
  }
  SRT_RETURN_IF_ERROR(inf.RequireNonEmpty(0));
  SRT_RETURN_IF_ERROR(inf.RequireNonEmpty(1));
  const Cell cell = static_cast<Cell>(inf.node.IntAttr(AttrKey::k_cell, 0));
  const bool is_lstm = cell == Cell::kLstm;
  const int64_t gates = is_lstm ? 4 : cell == Cell::kGru ? 3 : 1;
  const int64_t functions = is_lstm ? 3 : cell == Cell::kGru ? 2 : 1;
  SRT_RETURN_IF_ERROR(CheckGateFunctions(inf, static_cast<size_t>(functions)));
  const Shape& x = inf.InShape(0);
  const Shape& r = inf.InShape(1);
  if (x.rank != 3 || r.rank != 2) {
    return NodeError(inf.node, StatusCode::kShape,
                     "input %s must have rank 3 and weights %s rank 2", inf.Describe(0).text,
                     inf.Describe(1).text);
  }
  const int64_t hidden = r.dims[1];
  if (inf.Has(3) && cell != Cell::kGru) {
    return NodeError(inf.node, StatusCode::kModelFormat, "only a GRU has an input 3");
  }
  if (!is_lstm && (inf.Has(5) || inf.Has(7) || inf.node.outputs.size > 2 ||
                   inf.node.IntAttr(AttrKey::k_input_forget, 0) != 0)) {
    return NodeError(inf.node, StatusCode::kModelFormat,
                     "only an LSTM has a cell, peepholes or input_forget");
  }
  // With matrix 3 the last gate of a GRU is not in matrix 1.
  const int64_t rows = (gates - (inf.Has(3) ? 1 : 0)) * hidden;
  if (x.dims[2] != gates * hidden || r.dims[0] != rows) {
    return NodeError(inf.node, StatusCode::kShape,
                     "weights %s must have %" PRId64 " rows and input %s %" PRId64
                     " elements in its last dimension",
                     inf.Describe(1).text, rows, inf.Describe(0).text, gates * hidden);
  }
  const Shape states = ShapeOf(2, x.dims[1], hidden);
  SRT_RETURN_IF_ERROR(CheckStates(inf, 2, ShapeOf(1, rows, 0)));
  SRT_RETURN_IF_ERROR(CheckStates(inf, 3, ShapeOf(2, hidden, hidden)));
  SRT_RETURN_IF_ERROR(CheckStates(inf, 4, states));
  SRT_RETURN_IF_ERROR(CheckStates(inf, 5, states));
  SRT_RETURN_IF_ERROR(CheckStates(inf, 7, ShapeOf(1, 3 * hidden, 0)));
  SRT_RETURN_IF_ERROR(CheckStates(inf, 8, ShapeOf(2, functions, 2)));
  if (inf.Has(6) &&
      (inf.In(6).dtype != DType::kI32 || !SameShape(inf.InShape(6), ShapeOf(1, x.dims[1], 0)))) {
    return NodeError(inf.node, StatusCode::kShape, "lengths %s must be int32, one per sequence",
                     inf.Describe(6).text);
  }
  Shape out = x;
  out.dims[2] = hidden;
  SRT_RETURN_IF_ERROR(inf.SetOutput(0, DType::kF32, out));
  for (size_t i = 1; i < inf.node.outputs.size; ++i) {
    SRT_RETURN_IF_ERROR(inf.SetOutput(i, DType::kF32, states));
  }
  return Status::Ok();
}

Status InferNorm(const Inference& inf) {
  int first = 0;
  SRT_RETURN_IF_ERROR(inf.RequireF32(0));
  SRT_RETURN_IF_ERROR(ResolveNormAxis(inf, &first));
  const Shape& x = inf.InShape(0);
  Shape normalised;
  for (int d = first; d < x.rank; ++d) normalised.dims[normalised.rank++] = x.dims[d];
  for (size_t i = 1; i <= 2; ++i) {
    if (!inf.Has(i)) continue;
    SRT_RETURN_IF_ERROR(inf.RequireF32(i));
    if (SameShape(inf.InShape(i), normalised)) continue;
    return NodeError(inf.node, StatusCode::kShape, "input %s must have the shape %s",
                     inf.Describe(i).text, ShapeText(normalised).text);
  }
  return inf.SetOutput(0, DType::kF32, x);
}

Status InferWhere(const Inference& inf) {
  const DType a = inf.In(1).dtype;
  const DType b = inf.In(2).dtype;
  if (inf.In(0).dtype != DType::kBool || a != b) {
    return NodeError(inf.node, StatusCode::kShape,
                     "inputs %s, %s and %s are %s, %s and %s, expected bool and twice one type",
                     inf.Describe(0).text, inf.Describe(1).text, inf.Describe(2).text,
                     DTypeName(inf.In(0).dtype), DTypeName(a), DTypeName(b));
  }
  Shape choices;
  Shape out;
  if (!BroadcastShapes(inf.InShape(1), inf.InShape(2), &choices) ||
      !BroadcastShapes(inf.InShape(0), choices, &out)) {
    return NodeError(inf.node, StatusCode::kShape, "inputs %s, %s and %s do not broadcast",
                     inf.Describe(0).text, inf.Describe(1).text, inf.Describe(2).text);
  }
  return inf.SetOutput(0, a, out);
}

Status InferCompare(const Inference& inf) {
  int64_t fn = 0;
  SRT_RETURN_IF_ERROR(CheckFn(inf, static_cast<int64_t>(CompareFn::kCount), "compare", &fn));
  const DType a = inf.In(0).dtype;
  const bool has_two = fn != static_cast<int64_t>(CompareFn::kNot);
  if (inf.Has(1) != has_two) {
    return NodeError(inf.node, StatusCode::kModelFormat, "function %" PRId64 " takes %d inputs", fn,
                     has_two ? 2 : 1);
  }
  if (has_two && inf.In(1).dtype != a) {
    return NodeError(inf.node, StatusCode::kShape, "inputs %s and %s are %s and %s, expected one",
                     inf.Describe(0).text, inf.Describe(1).text, DTypeName(a),
                     DTypeName(inf.In(1).dtype));
  }
  const bool logical = fn >= static_cast<int64_t>(CompareFn::kAnd);
  if (logical ? a != DType::kBool : a == DType::kF16) {
    return NodeError(inf.node, StatusCode::kUnsupported, "input %s is %s", inf.Describe(0).text,
                     DTypeName(a));
  }
  Shape out = inf.InShape(0);
  if (has_two && !BroadcastShapes(inf.InShape(0), inf.InShape(1), &out)) {
    return NodeError(inf.node, StatusCode::kShape, "inputs %s and %s do not broadcast",
                     inf.Describe(0).text, inf.Describe(1).text);
  }
  return inf.SetOutput(0, DType::kBool, out);
}

}  // namespace sparsert
