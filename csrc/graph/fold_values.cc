// Evaluates shape arithmetic: nodes whose outputs follow from shapes and known values.

#include "graph/fold_arithmetic.h"
#include "graph/infer_rules.h"

namespace sparsert {
namespace {

// Known values of all tensors together; more stay unknown.
constexpr size_t kMaxTableValues = size_t{1} << 22;

// Walks the elements of a shape in row-major order while tracking an offset into a strided tensor.
struct Cursor {
  Shape shape;
  int64_t strides[kMaxRank] = {};
  int64_t index[kMaxRank] = {};
  int64_t at = 0;

  void Next() {
    for (int d = shape.rank - 1; d >= 0; --d) {
      if (++index[d] < shape.dims[d]) {
        at += strides[d];
        return;
      }
      at -= strides[d] * (shape.dims[d] - 1);
      index[d] = 0;
    }
  }
};

void RowMajorStrides(const Shape& shape, int64_t strides[kMaxRank]) {
  int64_t stride = 1;
  for (int d = shape.rank - 1; d >= 0; --d) {
    strides[d] = stride;
    stride *= shape.dims[d];
  }
}

// A cursor over `out` that reads `in` broadcast to it.
Cursor BroadcastCursor(const Shape& in, const Shape& out) {
  Cursor cursor;
  cursor.shape = out;
  int64_t strides[kMaxRank];
  RowMajorStrides(in, strides);
  const int shift = out.rank - in.rank;
  for (int d = 0; d < in.rank; ++d) {
    cursor.strides[d + shift] = in.dims[d] == 1 ? 0 : strides[d];
  }
  return cursor;
}

void CopyStrided(Cursor cursor, const int64_t* in, int64_t n, int64_t* out) {
  for (int64_t i = 0; i < n; ++i, cursor.Next()) out[i] = in[cursor.at];
}

bool IsSmallFloatConstant(const Inference& inf, size_t i) {
  const Tensor& tensor = inf.InTensor(i);
  return tensor.is_constant && tensor.dtype == DType::kF32 &&
         tensor.data.encoding == Encoding::kDense && inf.InShape(i).elements() <= kMaxKnownValues;
}

// Makes a small float constant known.
Status LoadFloatConstant(const Inference& inf, size_t i) {
  TensorFacts& facts = inf.out_table->facts[inf.node.inputs[i]];
  Array<int64_t>& values = inf.out_table->values;
  const size_t first = values.size();
  const size_t n = static_cast<size_t>(facts.shape.elements());
  SRT_RETURN_IF_ERROR(values.resize(first + n));
  for (size_t k = 0; k < n; ++k) {
    values[first + k] = FloatToSlot(DenseFloat(inf.InTensor(i).data, k));
  }
  facts.values_first = first;
  facts.is_known = true;
  return Status::Ok();
}

// True when output `i` is of a type and size that can be known.
bool CanBeKnown(const Inference& inf, size_t i) {
  const uint32_t tensor = inf.node.outputs[i];
  if (tensor == kNoTensor) return false;
  const TensorFacts& facts = inf.table.facts[tensor];
  if (facts.dtype != DType::kF32 && !IsIntegerDType(facts.dtype)) return false;
  const int64_t n = facts.shape.elements();
  return n <= kMaxKnownValues &&
         inf.table.values.size() + static_cast<size_t>(n) <= kMaxTableValues;
}

// Room for the values of output `i`. Spans of known values are invalid afterwards.
Status NewValues(const Inference& inf, size_t i, int64_t** out) {
  TensorFacts& facts = inf.out_table->facts[inf.node.outputs[i]];
  Array<int64_t>& values = inf.out_table->values;
  facts.values_first = values.size();
  SRT_RETURN_IF_ERROR(values.resize(values.size() + static_cast<size_t>(facts.shape.elements())));
  *out = values.data() + facts.values_first;
  return Status::Ok();
}

void MarkKnown(const Inference& inf, size_t i) {
  inf.out_table->facts[inf.node.outputs[i]].is_known = true;
}

const int64_t* Values(const Inference& inf, size_t i) {
  return inf.table.Known(inf.node.inputs[i]).data;
}

const TensorFacts& Out(const Inference& inf, size_t i) {
  return inf.table.facts[inf.node.outputs[i]];
}

void FoldGather(const Inference& inf, int64_t* out) {
  const Shape& x = inf.InShape(0);
  const Span<int64_t> indices = inf.table.Known(inf.node.inputs[1]);
  const int64_t* in = Values(inf, 0);
  const int64_t attr = inf.node.IntAttr(AttrKey::k_axis, 0);
  const int axis = static_cast<int>(attr < 0 ? attr + x.rank : attr);
  int64_t outer = 1;
  int64_t inner = 1;
  for (int d = 0; d < axis; ++d) outer *= x.dims[d];
  for (int d = axis + 1; d < x.rank; ++d) inner *= x.dims[d];
  if (inner == 0) return;
  for (int64_t o = 0; o < outer; ++o) {
    for (const int64_t index : indices) {
      const int64_t row = o * x.dims[axis] + (index < 0 ? index + x.dims[axis] : index);
      memcpy(out, in + row * inner, static_cast<size_t>(inner) * sizeof(int64_t));
      out += inner;
    }
  }
}

void FoldConcat(const Inference& inf, int64_t* out) {
  const Shape& shape = Out(inf, 0).shape;
  const int64_t attr = inf.node.IntAttr(AttrKey::k_axis, 0);
  const int axis = static_cast<int>(attr < 0 ? attr + shape.rank : attr);
  int64_t outer = 1;
  for (int d = 0; d < axis; ++d) outer *= shape.dims[d];
  for (int64_t o = 0; o < outer; ++o) {
    for (size_t i = 0; i < inf.node.inputs.size; ++i) {
      const int64_t n = inf.InShape(i).elements() / outer;
      if (n == 0) continue;
      memcpy(out, Values(inf, i) + o * n, static_cast<size_t>(n) * sizeof(int64_t));
      out += n;
    }
  }
}

// Copies part [begin, begin + size) along `axis` for each output.
Status FoldSplit(const Inference& inf) {
  int axis = 0;
  SRT_RETURN_IF_ERROR(ResolveSplitAxis(inf, &axis));
  const Shape& x = inf.InShape(0);
  int64_t strides[kMaxRank];
  RowMajorStrides(x, strides);
  int64_t begin = 0;
  for (size_t i = 0; i < inf.node.outputs.size; ++i) {
    int64_t size = 0;
    SRT_RETURN_IF_ERROR(ResolveSplitSize(inf, axis, i, &size));
    if (CanBeKnown(inf, i)) {
      int64_t* out = nullptr;
      SRT_RETURN_IF_ERROR(NewValues(inf, i, &out));
      Cursor cursor;
      cursor.shape = Out(inf, i).shape;
      memcpy(cursor.strides, strides, sizeof(strides));
      cursor.at = begin * strides[axis];
      CopyStrided(cursor, Values(inf, 0), cursor.shape.elements(), out);
      MarkKnown(inf, i);
    }
    begin += size;
  }
  return Status::Ok();
}

Status FoldSlice(const Inference& inf, int64_t* out) {
  SliceRange range;
  SRT_RETURN_IF_ERROR(ResolveSlice(inf, &range));
  Cursor cursor;
  cursor.shape = range.out;
  int64_t strides[kMaxRank];
  RowMajorStrides(inf.InShape(0), strides);
  for (int d = 0; d < range.out.rank; ++d) {
    cursor.strides[d] = strides[d] * range.step[d];
    cursor.at += strides[d] * range.start[d];
  }
  CopyStrided(cursor, Values(inf, 0), range.out.elements(), out);
  return Status::Ok();
}

Status FoldTranspose(const Inference& inf, int64_t* out) {
  int perm[kMaxRank];
  SRT_RETURN_IF_ERROR(ResolvePermutation(inf, perm));
  Cursor cursor;
  cursor.shape = Out(inf, 0).shape;
  int64_t strides[kMaxRank];
  RowMajorStrides(inf.InShape(0), strides);
  for (int d = 0; d < cursor.shape.rank; ++d) cursor.strides[d] = strides[perm[d]];
  CopyStrided(cursor, Values(inf, 0), cursor.shape.elements(), out);
  return Status::Ok();
}

Status FoldBinary(const Inference& inf, int64_t* out, bool* folded) {
  *folded = false;
  const TensorFacts& facts = Out(inf, 0);
  const DType dtype = facts.dtype;
  if (inf.In(1).dtype != dtype || inf.node.IntAttr(AttrKey::k_act, 0) != 0) return Status::Ok();
  const BinaryFn fn = static_cast<BinaryFn>(inf.node.IntAttr(AttrKey::k_fn, 0));
  Cursor a = BroadcastCursor(inf.InShape(0), facts.shape);
  Cursor b = BroadcastCursor(inf.InShape(1), facts.shape);
  const int64_t* x = Values(inf, 0);
  const int64_t* y = Values(inf, 1);
  const int64_t n = facts.shape.elements();
  for (int64_t i = 0; i < n; ++i, a.Next(), b.Next()) {
    if (dtype != DType::kF32) {
      if (fn == BinaryFn::kDiv && y[b.at] == 0) {
        return NodeError(inf.node, StatusCode::kShape, "divides %s by zero", inf.Describe(0).text);
      }
      if (!FoldBinaryInt(fn, dtype, x[a.at], y[b.at], out + i)) return Status::Ok();
      continue;
    }
    float value = 0.0f;
    if (!FoldBinaryFloat(fn, SlotToFloat(x[a.at]), SlotToFloat(y[b.at]), &value)) {
      return Status::Ok();
    }
    out[i] = FloatToSlot(value);
  }
  *folded = true;
  return Status::Ok();
}

bool FoldUnary(const Inference& inf, int64_t* out) {
  const TensorFacts& facts = Out(inf, 0);
  const UnaryFn fn = static_cast<UnaryFn>(inf.node.IntAttr(AttrKey::k_fn, 0));
  const float alpha = inf.node.FloatAttr(AttrKey::k_alpha, 0.0f);
  const float beta = inf.node.FloatAttr(AttrKey::k_beta, 0.0f);
  const int64_t* x = Values(inf, 0);
  const int64_t n = facts.shape.elements();
  for (int64_t i = 0; i < n; ++i) {
    if (facts.dtype != DType::kF32) {
      if (!FoldUnaryInt(fn, facts.dtype, x[i], out + i)) return false;
      continue;
    }
    float value = 0.0f;
    if (!FoldUnaryFloat(fn, alpha, beta, SlotToFloat(x[i]), &value)) return false;
    out[i] = FloatToSlot(value);
  }
  return true;
}

// Sum, Prod, Max, Min as the Binary function that accumulates them.
bool AccumulatingFn(ReduceFn fn, BinaryFn* binary) {
  switch (fn) {
    case ReduceFn::kSum:
      *binary = BinaryFn::kAdd;
      return true;
    case ReduceFn::kProd:
      *binary = BinaryFn::kMul;
      return true;
    case ReduceFn::kMax:
      *binary = BinaryFn::kMax;
      return true;
    case ReduceFn::kMin:
      *binary = BinaryFn::kMin;
      return true;
    default:
      return false;
  }
}

bool FoldReduce(const Inference& inf, const bool reduced[kMaxRank], int64_t* out) {
  const ReduceFn fn = static_cast<ReduceFn>(inf.node.IntAttr(AttrKey::k_fn, 0));
  BinaryFn binary;
  if (inf.node.IntAttr(AttrKey::k_act, 0) != 0 || !AccumulatingFn(fn, &binary)) return false;
  const Shape& x = inf.InShape(0);
  // Walks the input; `at` is the place in the output.
  Cursor cursor;
  cursor.shape = x;
  int64_t stride = 1;
  for (int d = x.rank - 1; d >= 0; --d) {
    cursor.strides[d] = reduced[d] ? 0 : stride;
    if (!reduced[d]) stride *= x.dims[d];
  }
  const DType dtype = inf.In(0).dtype;
  const int64_t* in = Values(inf, 0);
  const int64_t n = x.elements();
  if (n == 0) return false;
  for (int64_t i = 0; i < n; ++i, cursor.Next()) {
    bool is_first = true;
    for (int d = 0; d < x.rank; ++d) is_first = is_first && (!reduced[d] || cursor.index[d] == 0);
    int64_t* to = out + cursor.at;
    if (is_first) {
      *to = in[i];
    } else if (dtype != DType::kF32) {
      if (!FoldBinaryInt(binary, dtype, *to, in[i], to)) return false;
    } else {
      float value = 0.0f;
      if (!FoldBinaryFloat(binary, SlotToFloat(*to), SlotToFloat(in[i]), &value)) return false;
      *to = FloatToSlot(value);
    }
  }
  return true;
}

// Ops whose values do not come from those of input 0.
Status FoldSource(const Inference& inf, int64_t* out) {
  const TensorFacts& facts = Out(inf, 0);
  const int64_t n = facts.shape.elements();
  if (inf.node.op == Op::kShape) {
    int start = 0;
    int end = 0;
    ResolveShapeOp(inf, &start, &end);
    for (int d = start; d < end; ++d) out[d - start] = inf.InShape(0).dims[d];
  } else if (inf.node.op == Op::kSize) {
    out[0] = inf.InShape(0).elements();
  } else if (inf.node.op == Op::kRange) {
    for (int64_t i = 0; i < n; ++i) SRT_RETURN_IF_ERROR(RangeSlot(inf, i, out + i));
  } else {  // ConstantOfShape
    int64_t slot = 0;
    SRT_RETURN_IF_ERROR(FillSlot(inf.node, facts.dtype, &slot));
    for (int64_t i = 0; i < n; ++i) out[i] = slot;
  }
  MarkKnown(inf, 0);
  return Status::Ok();
}

void FoldWhere(const Inference& inf, int64_t* out) {
  const Shape& shape = Out(inf, 0).shape;
  Cursor chosen = BroadcastCursor(inf.InShape(0), shape);
  Cursor yes = BroadcastCursor(inf.InShape(1), shape);
  Cursor no = BroadcastCursor(inf.InShape(2), shape);
  const int64_t n = shape.elements();
  for (int64_t i = 0; i < n; ++i, chosen.Next(), yes.Next(), no.Next()) {
    out[i] = Values(inf, 0)[chosen.at] != 0 ? Values(inf, 1)[yes.at] : Values(inf, 2)[no.at];
  }
}

void FoldCompare(const Inference& inf, int64_t* out) {
  const auto fn = static_cast<CompareFn>(inf.node.IntAttr(AttrKey::k_fn, 0));
  const DType dtype = inf.In(0).dtype;
  const Shape& shape = Out(inf, 0).shape;
  const size_t second = inf.Has(1) ? 1 : 0;
  Cursor a = BroadcastCursor(inf.InShape(0), shape);
  Cursor b = BroadcastCursor(inf.InShape(second), shape);
  const int64_t n = shape.elements();
  for (int64_t i = 0; i < n; ++i, a.Next(), b.Next()) {
    out[i] = FoldCompareValue(fn, dtype, Values(inf, 0)[a.at], Values(inf, second)[b.at]);
  }
}

// True when all data inputs are known or small float constants, and one at least is known.
bool DataIsKnown(const Inference& inf, size_t n) {
  bool any = false;
  for (size_t i = 0; i < n; ++i) {
    if (inf.In(i).is_known) {
      any = true;
    } else if (!IsSmallFloatConstant(inf, i)) {
      return false;
    }
  }
  // Picking rows of a constant table is left to run time.
  if (inf.node.op == Op::kGather) return inf.In(0).is_known && inf.In(1).is_known;
  return any;
}

}  // namespace

Status FillSlot(const Node& node, DType dtype, int64_t* slot) {
  *slot = 0;
  const Attr* value = node.FindAttr(AttrKey::k_value);
  if (value == nullptr) return Status::Ok();
  const bool is_float = value->type == 1;
  const DType from = is_float ? DType::kF32 : DType::kI64;
  if (FoldCast(from, dtype, is_float ? FloatToSlot(value->f) : value->i, slot)) return Status::Ok();
  return NodeError(node, StatusCode::kShape, "value does not fit %s", DTypeName(dtype));
}

Status RangeSlot(const NodeView& view, int64_t i, int64_t* slot) {
  if (view.In(0).dtype != DType::kF32) {
    const uint64_t start = static_cast<uint64_t>(view.table.Known(view.node.inputs[0])[0]);
    const uint64_t delta = static_cast<uint64_t>(view.table.Known(view.node.inputs[2])[0]);
    *slot = static_cast<int64_t>(start + static_cast<uint64_t>(i) * delta);
    return Status::Ok();
  }
  float start[kMaxRank] = {};
  float delta[kMaxRank] = {};
  size_t one = 0;
  SRT_RETURN_IF_ERROR(view.KnownFloats(0, "start", start, &one));
  SRT_RETURN_IF_ERROR(view.KnownFloats(2, "delta", delta, &one));
  *slot = FloatToSlot(start[0] + static_cast<float>(i) * delta[0]);
  return Status::Ok();
}

size_t FoldedInputs(const Node& node) {
  switch (node.op) {
    case Op::kBinary:
    case Op::kGather:
      return 2;
    case Op::kWhere:
      return 3;
    case Op::kCompare:
    case Op::kConcat:
      return node.inputs.size;
    case Op::kUnary:
    case Op::kSplit:
    case Op::kSlice:
    case Op::kReshape:
    case Op::kFlatten:
    case Op::kSqueeze:
    case Op::kUnsqueeze:
    case Op::kTranspose:
    case Op::kExpand:
    case Op::kIdentity:
    case Op::kReduce:
    case Op::kCast:
      return 1;
    default:
      return 0;
  }
}

Status FoldNode(const Inference& inf) {
  const Op op = inf.node.op;
  if (op == Op::kShape || op == Op::kSize || op == Op::kRange || op == Op::kConstantOfShape) {
    if (!CanBeKnown(inf, 0)) return Status::Ok();
    int64_t* out = nullptr;
    SRT_RETURN_IF_ERROR(NewValues(inf, 0, &out));
    return FoldSource(inf, out);
  }
  const size_t data_inputs = FoldedInputs(inf.node);
  if (data_inputs == 0 || !DataIsKnown(inf, data_inputs)) return Status::Ok();
  if (op == Op::kSplit) return FoldSplit(inf);
  if (!CanBeKnown(inf, 0)) return Status::Ok();
  for (size_t i = 0; i < data_inputs; ++i) {
    if (!inf.In(i).is_known) SRT_RETURN_IF_ERROR(LoadFloatConstant(inf, i));
  }
  bool reduced[kMaxRank] = {};
  if (op == Op::kReduce) SRT_RETURN_IF_ERROR(ResolveReducedAxes(inf, reduced));

  int64_t* out = nullptr;
  SRT_RETURN_IF_ERROR(NewValues(inf, 0, &out));
  const Shape& shape = Out(inf, 0).shape;
  const int64_t n = shape.elements();
  if (n == 0) {
    MarkKnown(inf, 0);
    return Status::Ok();
  }
  bool folded = true;
  switch (op) {
    case Op::kSlice:
      SRT_RETURN_IF_ERROR(FoldSlice(inf, out));
      break;
    case Op::kTranspose:
      SRT_RETURN_IF_ERROR(FoldTranspose(inf, out));
      break;
    case Op::kExpand:
      CopyStrided(BroadcastCursor(inf.InShape(0), shape), Values(inf, 0), n, out);
      break;
    case Op::kGather:
      FoldGather(inf, out);
      break;
    case Op::kConcat:
      FoldConcat(inf, out);
      break;
    case Op::kBinary:
      SRT_RETURN_IF_ERROR(FoldBinary(inf, out, &folded));
      break;
    case Op::kUnary:
      folded = FoldUnary(inf, out);
      break;
    case Op::kReduce:
      folded = FoldReduce(inf, reduced, out);
      break;
    case Op::kWhere:
      FoldWhere(inf, out);
      break;
    case Op::kCompare:
      FoldCompare(inf, out);
      break;
    case Op::kCast:
      for (int64_t i = 0; folded && i < n; ++i) {
        folded = FoldCast(inf.In(0).dtype, Out(inf, 0).dtype, Values(inf, 0)[i], out + i);
      }
      break;
    default:  // a copy under another shape
      memcpy(out, Values(inf, 0), static_cast<size_t>(n) * sizeof(int64_t));
      break;
  }
  if (folded) MarkKnown(inf, 0);
  return Status::Ok();
}

}  // namespace sparsert
