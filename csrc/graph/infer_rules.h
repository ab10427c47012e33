// The rules of shape inference, one function per op or family; private to csrc/graph.
#pragma once

#include "graph/resolve.h"

namespace sparsert {

// A NodeView that can also set facts of the node's outputs.
struct Inference : NodeView {
  Inference(const Graph& g, ShapeTable* t, const Node& n) : NodeView(g, *t, n), out_table(t) {}

  ShapeTable* out_table;

  // Does nothing for an absent output. kShape when the shape is beyond the limits.
  Status SetOutput(size_t i, DType dtype, const Shape& shape) const;
};

// infer_conv_pool.cc
Status InferConv(const Inference& inf);
Status InferConvTranspose(const Inference& inf);
Status InferPool(const Inference& inf);
Status InferGlobalPool(const Inference& inf);
// What a window makes of x, in so many planes.
Shape WindowOutput(const Shape& x, int64_t planes, const Window& window);

// infer_quantised.cc
Status InferQuantizePacked(const Inference& inf);
Status InferDequantizePacked(const Inference& inf);
Status InferQuantizeDynamic(const Inference& inf);
Status InferQuantisedConv(const Inference& inf);
Status InferQuantisedAdd(const Inference& inf);
Status InferQuantisedPool(const Inference& inf);
Status InferLookup(const Inference& inf);
Status InferQuantisedElementwise(const Inference& inf);
Status InferQuantisedAttention(const Inference& inf);
// Packed planes of so many channels.
inline int64_t PackedPlanes(int64_t channels) { return (channels + 3) / 4; }

// infer_compute.cc
Status InferLinear(const Inference& inf);
Status InferBatchNormalization(const Inference& inf);
Status InferUnary(const Inference& inf);
Status InferPRelu(const Inference& inf);
Status InferBinary(const Inference& inf);
Status InferReduce(const Inference& inf);
Status InferSoftmax(const Inference& inf);
Status InferCast(const Inference& inf);
Status InferMatMul(const Inference& inf);
Status InferAttention(const Inference& inf);
Status InferRecurrent(const Inference& inf);
Status InferNorm(const Inference& inf);
Status InferWhere(const Inference& inf);
Status InferCompare(const Inference& inf);
// Bias of a Conv, ConvTranspose or Linear (input 2): absent or a constant [channels].
Status CheckBias(const Inference& inf, int64_t channels);
// Residual (input 3): absent or float32 of exactly the output's shape.
Status CheckResidual(const Inference& inf, const Shape& out);

// infer_movement.cc
Status InferConcat(const Inference& inf);
Status InferSplit(const Inference& inf);
Status InferSlice(const Inference& inf);
Status InferReshape(const Inference& inf);
Status InferFlatten(const Inference& inf);
Status InferSqueeze(const Inference& inf);
Status InferUnsqueeze(const Inference& inf);
Status InferTranspose(const Inference& inf);
Status InferExpand(const Inference& inf);
Status InferIdentity(const Inference& inf);
Status InferGather(const Inference& inf);
Status InferPad(const Inference& inf);
Status InferResize(const Inference& inf);
Status InferShapeOp(const Inference& inf);
Status InferSize(const Inference& inf);
Status InferConstantOfShape(const Inference& inf);
Status InferRange(const Inference& inf);

// infer_index.cc
Status InferArgReduce(const Inference& inf);
Status InferTopK(const Inference& inf);
Status InferGatherElements(const Inference& inf);
Status InferGatherNd(const Inference& inf);
Status InferScatterElements(const Inference& inf);
Status InferScatterNd(const Inference& inf);
Status InferOneHot(const Inference& inf);
Status InferCumulate(const Inference& inf);
Status InferTrilu(const Inference& inf);
Status InferTile(const Inference& inf);
Status InferBitCast(const Inference& inf);

// infer_sample.cc
Status InferGridSample(const Inference& inf);
Status InferRoiAlign(const Inference& inf);
Status InferDeformColumns(const Inference& inf);

// Whether a product of packed bytes has one filter, and one group, for each channel.
inline bool IsQuantisedDepthwise(const Node& node, const int64_t* weight_dims, int rank) {
  if (node.op != Op::kQConvDynamic) return node.op == Op::kQDepthwise;
  const int64_t group = node.IntAttr(AttrKey::k_group, 1);
  return group > 1 && weight_dims[0] == group && weight_dims[rank - 1] == 1;
}

// Number of values of Range(start, limit, delta), delta != 0; -1 when it exceeds kMaxElements.
int64_t RangeCount(int64_t start, int64_t limit, int64_t delta);
// Bounds of Shape's start and end attributes, clamped to [0, rank].
void ResolveShapeOp(const NodeView& view, int* start, int* end);

// fold_values.cc: how many leading inputs carry values; the others are index-like. 0: the op is
// never folded.
size_t FoldedInputs(const Node& node);
// The value of the node's outputs, whose shapes are set, when it follows from
// shapes and known values. Leaves them unknown otherwise.
Status FoldNode(const Inference& inf);

}  // namespace sparsert
