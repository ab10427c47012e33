// NodeView: one node with the facts of its inputs, and the wording of its errors.
#pragma once

#include "graph/infer_shapes.h"

namespace sparsert {

// Largest number of elements of a tensor, and largest value of a dimension.
constexpr int64_t kMaxElements = int64_t{1} << 40;
// Largest kernel, stride, dilation or pad of a window.
constexpr int64_t kMaxWindowValue = int64_t{1} << 30;

// *out = a * b. False when the product exceeds kMaxElements. a, b in [0, kMaxElements].
bool MulElements(int64_t a, int64_t b, int64_t* out);

// True when rank, dimensions and number of elements are within limits. Dimensions of 0 count as 1,
// so that strides cannot overflow either.
bool ShapeWithinLimits(const Shape& shape);

bool SameShape(const Shape& a, const Shape& b);

bool IsIntegerDType(DType dtype);  // integers and bool
const char* DTypeName(DType dtype);

// "[1,3,224,224]"
struct ShapeText {
  explicit ShapeText(const Shape& shape);
  ShapeText(const int64_t* dims, size_t n);
  char text[200];
};

// A name cut to a length that fits messages, at a UTF-8 boundary.
struct NameText {
  explicit NameText(StrView name);
  char text[68];
};

// "'weights' [64,3,7,7]"
struct TensorText {
  char text[272];
};

// "node 'conv1' (Conv): " followed by the formatted text.
Status NodeError(const Node& node, StatusCode code, const char* format, ...)
#if defined(__GNUC__)
    __attribute__((format(printf, 3, 4)))
#endif
    ;

// A node, and what is known of its inputs. Cheap to build; owns nothing.
struct NodeView {
  NodeView(const Graph& g, const ShapeTable& t, const Node& n) : graph(g), table(t), node(n) {}

  const Graph& graph;
  const ShapeTable& table;
  const Node& node;

  bool Has(size_t i) const { return node.Input(i) != kNoTensor; }
  // The inputs below must be present.
  const TensorFacts& In(size_t i) const { return table.facts[node.inputs[i]]; }
  const Shape& InShape(size_t i) const { return In(i).shape; }
  const Tensor& InTensor(size_t i) const { return graph.tensors[node.inputs[i]]; }
  TensorText Describe(size_t i) const;

  // The values of an index-like input. kUnsupported when they are not known at plan time, kShape
  // when the input is not an integer tensor or has a rank above 1.
  Status KnownInts(size_t i, const char* what, Span<int64_t>* values) const;
  // The values of a float input of rank 1, at most `most` of them: a constant, or known.
  Status KnownFloats(size_t i, const char* what, float* values, size_t* n,
                     int64_t most = kMaxRank) const;

  Status RequireF32(size_t i) const;
  Status RequireConstant(size_t i, const char* what) const;
  Status RequireNonEmpty(size_t i, int first = 0) const;  // from dimension `first` on, none is 0
  // A float input and constant float weights, neither empty but for the batch.
  Status RequireWeighted() const;
};

// The i-th value of a dense float constant (f32 or f16 storage).
float DenseFloat(const EncodedTensor& data, size_t i);

// Known f32 values are kept as their bit pattern in an int64 slot.
inline int64_t FloatToSlot(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof(bits));
  return static_cast<int64_t>(bits);
}
inline float SlotToFloat(int64_t slot) {
  const uint32_t bits = static_cast<uint32_t>(slot);
  float value;
  memcpy(&value, &bits, sizeof(value));
  return value;
}

}  // namespace sparsert
