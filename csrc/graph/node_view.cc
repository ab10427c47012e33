// NodeView and the helpers of shape inference: limits, texts, reading plan-time values.
#include "graph/node_view.h"

#include <cinttypes>
#include <cstring>

namespace sparsert {

bool MulElements(int64_t a, int64_t b, int64_t* out) {
  if (b != 0 && a > kMaxElements / b) return false;
  *out = a * b;
  return true;
}

bool ShapeWithinLimits(const Shape& shape) {
  if (shape.rank < 0 || shape.rank > kMaxRank) return false;
  int64_t n = 1;
  for (int i = 0; i < shape.rank; ++i) {
    const int64_t dim = shape.dims[i];
    if (dim < 0 || dim > kMaxElements) return false;
    if (!MulElements(n, dim == 0 ? 1 : dim, &n)) return false;
  }
  return true;
}

bool SameShape(const Shape& a, const Shape& b) {
  if (a.rank != b.rank) return false;
  for (int i = 0; i < a.rank; ++i) {
    if (a.dims[i] != b.dims[i]) return false;
  }
  return true;
}

bool IsIntegerDType(DType dtype) {
  switch (dtype) {
    case DType::kU8:
    case DType::kI8:
    case DType::kU16:
    case DType::kI16:
    case DType::kI32:
    case DType::kI64:
    case DType::kBool:
    case DType::kU32:
    case DType::kU64:
      return true;
    default:
      return false;
  }
}

const char* DTypeName(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return "float32";
    case DType::kU8:
      return "uint8";
    case DType::kI8:
      return "int8";
    case DType::kU16:
      return "uint16";
    case DType::kI16:
      return "int16";
    case DType::kI32:
      return "int32";
    case DType::kI64:
      return "int64";
    case DType::kBool:
      return "bool";
    case DType::kF16:
      return "float16";
    case DType::kF64:
      return "float64";
    case DType::kU32:
      return "uint32";
    case DType::kU64:
      return "uint64";
    default:
      return "unknown dtype";
  }
}

ShapeText::ShapeText(const Shape& shape)
    : ShapeText(shape.dims, static_cast<size_t>(shape.rank < 0 ? 0 : shape.rank)) {}

ShapeText::ShapeText(const int64_t* dims, size_t n) {
  size_t used = static_cast<size_t>(snprintf(text, sizeof(text), "["));
  for (size_t i = 0; i < n; ++i) {
    if (used + 32 > sizeof(text)) {
      used += static_cast<size_t>(snprintf(text + used, sizeof(text) - used, ",..."));
      break;
    }
    used += static_cast<size_t>(
        snprintf(text + used, sizeof(text) - used, i == 0 ? "%" PRId64 : ",%" PRId64, dims[i]));
  }
  snprintf(text + used, sizeof(text) - used, "]");
}

NameText::NameText(StrView name) {
  size_t n = name.size;
  const size_t room = sizeof(text) - 4;
  const bool cut = n > room;
  if (cut) {
    n = room;
    while (n > 0 && (static_cast<unsigned char>(name.data[n]) & 0xC0) == 0x80) --n;
  }
  for (size_t i = 0; i < n; ++i) {
    text[i] = static_cast<unsigned char>(name.data[i]) < 0x20 ? ' ' : name.data[i];
  }
  snprintf(text + n, sizeof(text) - n, "%s", cut ? "..." : "");
}

Status NodeError(const Node& node, StatusCode code, const char* format, ...) {
  char message[400];
  va_list args;
  va_start(args, format);
  vsnprintf(message, sizeof(message), format, args);
  va_end(args);
  const char* op = OpName(node.op);
  return Status::Error(code, "node '%s' (%s): %s", NameText(node.name).text,
                       op == nullptr ? "unknown op" : op, message);
}

TensorText NodeView::Describe(size_t i) const {
  TensorText out;
  const NameText name(InTensor(i).name);
  const ShapeText shape(InShape(i));
  snprintf(out.text, sizeof(out.text), "'%s' %s", name.text, shape.text);
  return out;
}

Status NodeView::KnownInts(size_t i, const char* what, Span<int64_t>* values) const {
  const TensorFacts& facts = In(i);
  if (!IsIntegerDType(facts.dtype)) {
    return NodeError(node, StatusCode::kShape, "%s %s must be an integer tensor, not %s", what,
                     Describe(i).text, DTypeName(facts.dtype));
  }
  if (facts.shape.rank > 1) {
    return NodeError(node, StatusCode::kShape, "%s %s must have rank 0 or 1", what,
                     Describe(i).text);
  }
  if (!facts.is_known) {
    return NodeError(node, StatusCode::kUnsupported,
                     "%s %s depends on the values of the inputs; it must be computable from "
                     "shapes and constants alone",
                     what, Describe(i).text);
  }
  *values = table.Known(node.inputs[i]);
  return Status::Ok();
}

Status NodeView::KnownFloats(size_t i, const char* what, float* values, size_t* n,
                             int64_t most) const {
  const TensorFacts& facts = In(i);
  if (facts.dtype != DType::kF32) {
    return NodeError(node, StatusCode::kShape, "%s %s must be float32, not %s", what,
                     Describe(i).text, DTypeName(facts.dtype));
  }
  if (facts.shape.rank > 1 || facts.shape.elements() > most) {
    return NodeError(node, StatusCode::kShape, "%s %s must have rank 1 and at most %d elements",
                     what, Describe(i).text, static_cast<int>(most));
  }
  *n = static_cast<size_t>(facts.shape.elements());
  if (facts.is_known) {
    const Span<int64_t> slots = table.Known(node.inputs[i]);
    for (size_t k = 0; k < *n; ++k) values[k] = SlotToFloat(slots[k]);
    return Status::Ok();
  }
  const Tensor& tensor = InTensor(i);
  if (!tensor.is_constant || tensor.data.encoding != Encoding::kDense) {
    return NodeError(node, StatusCode::kUnsupported,
                     "%s %s depends on the values of the inputs; it must be computable from "
                     "shapes and constants alone",
                     what, Describe(i).text);
  }
  for (size_t k = 0; k < *n; ++k) values[k] = DenseFloat(tensor.data, k);
  return Status::Ok();
}

Status NodeView::RequireF32(size_t i) const {
  if (In(i).dtype == DType::kF32) return Status::Ok();
  return NodeError(node, StatusCode::kUnsupported, "input %s is %s, expected float32",
                   Describe(i).text, DTypeName(In(i).dtype));
}

Status NodeView::RequireConstant(size_t i, const char* what) const {
  if (InTensor(i).is_constant) return Status::Ok();
  return NodeError(node, StatusCode::kUnsupported, "%s %s must be a constant", what,
                   Describe(i).text);
}

Status NodeView::RequireNonEmpty(size_t i, int first) const {
  for (int d = first; d < InShape(i).rank; ++d) {
    if (InShape(i).dims[d] == 0) {
      return NodeError(node, StatusCode::kShape, "input %s has a dimension of size 0",
                       Describe(i).text);
    }
  }
  return Status::Ok();
}

Status NodeView::RequireWeighted() const {
  SRT_RETURN_IF_ERROR(RequireF32(0));
  SRT_RETURN_IF_ERROR(RequireF32(1));
  SRT_RETURN_IF_ERROR(RequireConstant(1, "weights"));
  return RequireNonEmpty(1);
}

float DenseFloat(const EncodedTensor& data, size_t i) {
  if (data.value_dtype == DType::kF32) {
    float value;
    memcpy(&value, data.values + i * sizeof(value), sizeof(value));
    return value;
  }
  uint16_t half;
  memcpy(&half, data.values + i * sizeof(half), sizeof(half));
  const uint32_t sign = static_cast<uint32_t>(half >> 15) << 31;
  const uint32_t exponent = (half >> 10) & 31u;
  const uint32_t fraction = half & 1023u;
  if (exponent == 0) {
    const float magnitude = static_cast<float>(fraction) / 16777216.0f;
    return sign != 0 ? -magnitude : magnitude;
  }
  const uint32_t wide = exponent == 31 ? 255u : exponent + 112u;
  return SlotToFloat(static_cast<int64_t>(sign | (wide << 23) | (fraction << 13)));
}

}  // namespace sparsert
