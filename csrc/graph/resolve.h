// Node parameters with defaults, negative axes and clamping resolved to plain numbers.
//
// Used by shape inference and, with a NodeView over the finished ShapeTable, by the planner.
#pragma once

#include "graph/node_view.h"

namespace sparsert {

// Turns an axis in [-rank, rank) into [0, rank). `rank` is at least 1 for any axis to be valid.
Status NormalizeAxis(const Node& node, int64_t axis, int rank, int* normalized);

// Slice: output element o along dimension d reads input element start[d] + o * step[d]. Dimensions
// that are not sliced have start 0 and step 1.
struct SliceRange {
  int64_t start[kMaxRank] = {};
  int64_t step[kMaxRank] = {};
  Shape out;
};
Status ResolveSlice(const NodeView& view, SliceRange* range);

// Pad: elements added (or, when negative, removed) before and after each dimension.
struct PadRange {
  int64_t begin[kMaxRank] = {};
  int64_t end[kMaxRank] = {};
  Shape out;
};
Status ResolvePad(const NodeView& view, PadRange* range);

// Transpose: output dimension d is input dimension perm[d].
Status ResolvePermutation(const NodeView& view, int perm[kMaxRank]);

// Reduce: reduced[d] says whether input dimension d is reduced. All false: the op copies.
Status ResolveReducedAxes(const NodeView& view, bool reduced[kMaxRank]);

// Split: its axis, and the size of one output along it (the caller checks that they add up).
Status ResolveSplitAxis(const NodeView& view, int* axis);
Status ResolveSplitSize(const NodeView& view, int axis, size_t output, int64_t* size);

// Resize: output shape and the scale of each dimension as given (scales) or as out / in (sizes).
// A crop lies between begin and end, 0 and 1 being the ends of the dimension.
struct ResizeRange {
  float scale[kMaxRank] = {};
  float begin[kMaxRank] = {};
  float end[kMaxRank] = {};
  Shape out;
};
Status ResolveResize(const NodeView& view, ResizeRange* range);

// MatMul: matrices [m, k] and [k, n], which broadcast over `batch`.
struct MatMulSizes {
  int64_t m = 1;
  int64_t n = 1;
  int64_t k = 1;
  Shape batch;
  Shape out;
};
Status ResolveMatMul(const NodeView& view, MatMulSizes* sizes);

// Attention: its scores [batch, heads, queries, keys], and its result.
struct AttentionSizes {
  Shape scores;
  int64_t kv_heads = 1;  // divides the heads: so many successive ones share a key
  int64_t size = 0;      // features of a head
  int64_t value_size = 0;
  Shape out;
};
Status ResolveAttention(const NodeView& view, AttentionSizes* sizes);

// LayerNormalization and RMSNormalization: the first of the dimensions that are normalised.
Status ResolveNormAxis(const NodeView& view, int* first);

// The element of a ConstantOfShape of integers or float32, and element i of a Range, as known
// values are kept.
Status FillSlot(const Node& node, DType dtype, int64_t* slot);
Status RangeSlot(const NodeView& view, int64_t i, int64_t* slot);

// numpy broadcasting of two shapes; false when they do not fit.
bool BroadcastShapes(const Shape& a, const Shape& b, Shape* out);

}  // namespace sparsert
