// What the steps of a Conv over few planes share, those of rowconv, stem and wstem.
#pragma once

#include "plan/builder.h"
#include "plan/conv_operands.h"

namespace sparsert {

// What a window says. Args: RowconvArgs or StemArgs.
template <typename Args>
Args PlanesArgsOf(const Window& w, int64_t in_channels, int64_t channels) {
  Args a;
  a.channels = static_cast<int32_t>(channels);
  a.in_channels = static_cast<int32_t>(in_channels);
  a.kernel_h = w.kernel[0];
  a.kernel_w = w.kernel[1];
  a.pad_h = w.pad_begin[0];
  a.pad_w = w.pad_begin[1];
  a.in_h = w.in[0];
  a.in_w = w.in[1];
  a.out_h = w.out[0];
  a.out_w = w.out[1];
  return a;
}

// Whether a pool has square windows of this size and padding, two apart.
inline bool IsPoolOf(const Window& w, int64_t kernel, int64_t pad) {
  for (int d = 0; d < 2; ++d) {
    if (w.kernel[d] != kernel || w.stride[d] != 2 || w.dilation[d] != 1 || w.pad_begin[d] != pad) {
      return false;
    }
  }
  return true;
}

// The pool that stem and wstem know, of which every window has an output at its middle, and the
// activations that they apply to its maxima.
inline bool IsStemPool(const Window& w) {
  return IsPoolOf(w, 3, 1) && 2 * (w.out[0] - 1) < w.in[0] && 2 * (w.out[1] - 1) < w.in[1];
}
inline bool KeepsOrder(UnaryFn fn) {
  return fn == UnaryFn::kNone || fn == UnaryFn::kRelu || fn == UnaryFn::kClip;
}

// What the step writes: the output of the pool that it computes too, or of the current node.
inline uint32_t PlanesConvOutput(const PlanBuilder& b) {
  const uint32_t pool = b.planes_conv.pool;
  return pool == PlanesConv::kNoPool ? b.node->outputs[0] : b.graph.nodes[pool].outputs[0];
}

// Operands, weights and activation of the current node, as chosen in b->planes_conv.
template <typename Args>
Status FillPlanesArgs(PlanBuilder* b, Args* a) {
  const Node& node = *b->node;
  const uint32_t x = node.Input(0);
  const uint32_t y = PlanesConvOutput(*b);
  const Shape& out = b->facts(y).shape;
  *a = PlanesArgsOf<Args>(b->planes_conv.window, b->facts(x).shape.dims[1], out.dims[1]);
  a->batch = static_cast<int32_t>(out.dims[0]);
  a->pool = b->planes_conv.pool != PlanesConv::kNoPool;
  PlaceInOut(b->desc(x), b->desc(y), a);
  a->act = FusedActivation(node);
  SRT_RETURN_IF_ERROR(b->ConstantFloats(node.Input(1), &a->weights));
  return b->ConstantFloats(node.Input(2), &a->bias);
}

// The same, all but what is packed. Args: StemArgs.
template <typename Args>
Status FillStemArgs(PlanBuilder* b, Args* a) {
  SRT_RETURN_IF_ERROR(FillPlanesArgs(b, a));
  a->stride_h = b->planes_conv.window.stride[0];
  a->stride_w = b->planes_conv.window.stride[1];
  if (a->pool) {
    const Shape& pooled = b->facts(PlanesConvOutput(*b)).shape;
    a->pooled_h = pooled.dims[2];
    a->pooled_w = pooled.dims[3];
  }
  return Status::Ok();
}

}  // namespace sparsert
