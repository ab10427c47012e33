// Shape inference for concrete input shapes; evaluates shape arithmetic on the way.
#pragma once

#include "graph/graph.h"

namespace sparsert {

struct TensorFacts {
  bool has_shape = false;  // false: not computed by any node reached (unused)
  DType dtype = DType::kF32;
  Shape shape;
  // The value, when known at plan time (constants of any type stay in the file and are not copied
  // here unless integer, or float and part of shape arithmetic, with at most kMaxKnownValues
  // elements): indices into ShapeTable::values.
  bool is_known = false;
  size_t values_first = 0;
};

constexpr int64_t kMaxKnownValues = 4096;

struct ShapeTable {
  explicit ShapeTable(const Allocator* allocator) : facts(allocator), values(allocator) {}

  Array<TensorFacts> facts;  // [graph.tensors.size()]
  // Known integer and bool values, as int64. Float32 shape arithmetic (such as the scales of a
  // Resize) is known too: the slot then holds the float's bits, see SlotToFloat in node_view.h. In
  // both cases the low bytes of a slot are the element as it lies in memory (little-endian).
  Array<int64_t> values;

  Span<int64_t> Known(uint32_t tensor) const {
    const TensorFacts& f = facts[tensor];
    return {values.data() + f.values_first, static_cast<size_t>(f.shape.elements())};
  }
};

// Computes shape and dtype of every tensor from the shapes of the graph's inputs. Returns kShape
// with the node's name, the tensors' shapes and what was expected when they contradict,
// kUnsupported when an index-like input (shape, axes, pads, ...) is not known at plan time.
// `input_shapes`: one per graph input, no negative dims; dims 0 are allowed only where the op
// makes sense of them (an empty batch is an error said clearly, unless allow_empty). Unless
// as_declared, they need not agree with the shapes that the graph declares: a slice of a fixed
// batch does not. `input_values`: empty, or one row-major buffer per graph input, nullptr where the
// value is not known; of these, integers and float32 of at most kMaxKnownValues elements become
// known.
Status InferShapes(const Graph& graph, Span<Shape> input_shapes, ShapeTable* table,
                   bool as_declared = true, Span<const void*> input_values = {},
                   bool allow_empty = false);

// Spatial geometry shared by Conv, ConvTranspose and the pools, with auto_pad resolved.
struct Window {
  int spatial_rank = 0;  // 1 or 2
  int64_t kernel[2] = {1, 1};
  int64_t stride[2] = {1, 1};
  int64_t dilation[2] = {1, 1};
  int64_t pad_begin[2] = {0, 0};
  int64_t pad_end[2] = {0, 0};
  int64_t in[2] = {1, 1};
  int64_t out[2] = {1, 1};
};

// `kernel_shape` comes from the weights (convolutions) or the attribute (pools). 1-D windows use
// index 1 (width); index 0 (height) is then all ones, with pads 0.
//
// Pads are never negative. Output o covers input elements o * stride - pad_begin + k * dilation,
// k in [0, kernel). A pool's last window may reach past in + pad_end (ceil_mode): pad_end stays as
// given and only `out` grows; the elements past in + pad_end count neither as input nor as padding.
// A pool's window may cover no input element at all when it is dilated.
Status ResolveWindow(const Node& node, const Shape& x, Span<int64_t> kernel_shape, Window* window);
// Input element i adds to output elements i * stride - pad_begin + k * dilation that lie in
// [0, out). Output elements that nothing adds to (output_padding, output_shape) hold the bias;
// pad_end is informative.
Status ResolveTransposedWindow(const Node& node, const Shape& x, Span<int64_t> kernel_shape,
                               Window* window);

}  // namespace sparsert
