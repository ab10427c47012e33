// Shape rules of convolutions and pools.
#include <cinttypes>

#include "graph/infer_rules.h"

namespace sparsert {
namespace {

// Checks X, W, group and B. `out_channels` = channels of the result.
Status CheckConvOperands(const Inference& inf, bool transposed, int64_t* out_channels) {
  SRT_RETURN_IF_ERROR(inf.RequireWeighted());
  SRT_RETURN_IF_ERROR(inf.RequireNonEmpty(0, 1));
  const Shape& x = inf.InShape(0);
  const Shape& w = inf.InShape(1);
  if (x.rank < 3 || x.rank > 4 || w.rank != x.rank) {
    return NodeError(inf.node, x.rank > 4 ? StatusCode::kUnsupported : StatusCode::kShape,
                     "input %s and weights %s must have the same rank, 3 or 4",
                     inf.Describe(0).text, inf.Describe(1).text);
  }
  const int64_t group = inf.node.IntAttr(AttrKey::k_group, 1);
  if (group < 1 || w.dims[0] % group != 0) {
    return NodeError(inf.node, StatusCode::kShape,
                     "group %" PRId64 " does not divide the %" PRId64 " rows of weights %s", group,
                     w.dims[0], inf.Describe(1).text);
  }
  int64_t in_channels = w.dims[0];
  *out_channels = w.dims[0];
  if (!MulElements(w.dims[1], group, transposed ? out_channels : &in_channels) ||
      x.dims[1] != in_channels) {
    return NodeError(inf.node, StatusCode::kShape,
                     "input %s has %" PRId64 " channels, weights %s with group %" PRId64
                     " need %" PRId64,
                     inf.Describe(0).text, x.dims[1], inf.Describe(1).text, group, in_channels);
  }
  const Span<int64_t> kernel = inf.node.IntsAttr(AttrKey::k_kernel_shape);
  if (!kernel.empty() && (kernel.size != static_cast<size_t>(w.rank - 2) ||
                          memcmp(kernel.data, w.dims + 2, kernel.size * sizeof(int64_t)) != 0)) {
    return NodeError(inf.node, StatusCode::kShape, "kernel_shape %s contradicts weights %s",
                     ShapeText(kernel.data, kernel.size).text, inf.Describe(1).text);
  }
  return CheckBias(inf, *out_channels);
}

}  // namespace

Shape WindowOutput(const Shape& x, int64_t planes, const Window& window) {
  Shape out = x;
  out.dims[1] = planes;
  for (int i = 2; i < x.rank; ++i) out.dims[i] = window.out[4 - x.rank + i - 2];
  return out;
}

Status InferConv(const Inference& inf) {
  int64_t channels = 0;
  SRT_RETURN_IF_ERROR(CheckConvOperands(inf, /*transposed=*/false, &channels));
  const Shape& x = inf.InShape(0);
  const Shape& w = inf.InShape(1);
  Window window;
  SRT_RETURN_IF_ERROR(
      ResolveWindow(inf.node, x, {w.dims + 2, static_cast<size_t>(w.rank - 2)}, &window));
  const Shape out = WindowOutput(x, channels, window);
  SRT_RETURN_IF_ERROR(CheckResidual(inf, out));
  return inf.SetOutput(0, DType::kF32, out);
}

Status InferConvTranspose(const Inference& inf) {
  int64_t channels = 0;
  SRT_RETURN_IF_ERROR(CheckConvOperands(inf, /*transposed=*/true, &channels));
  const Shape& x = inf.InShape(0);
  const Shape& w = inf.InShape(1);
  Window window;
  SRT_RETURN_IF_ERROR(
      ResolveTransposedWindow(inf.node, x, {w.dims + 2, static_cast<size_t>(w.rank - 2)}, &window));
  return inf.SetOutput(0, DType::kF32, WindowOutput(x, channels, window));
}

Status InferPool(const Inference& inf) {
  SRT_RETURN_IF_ERROR(inf.RequireF32(0));
  SRT_RETURN_IF_ERROR(inf.RequireNonEmpty(0, 1));
  const Shape& x = inf.InShape(0);
  const Span<int64_t> kernel = inf.node.IntsAttr(AttrKey::k_kernel_shape);
  Window window;
  SRT_RETURN_IF_ERROR(ResolveWindow(inf.node, x, kernel, &window));
  const Shape out = WindowOutput(x, x.dims[1], window);
  SRT_RETURN_IF_ERROR(inf.SetOutput(0, DType::kF32, out));
  return inf.node.outputs.size > 1 ? inf.SetOutput(1, DType::kI64, out) : Status::Ok();
}

Status InferGlobalPool(const Inference& inf) {
  SRT_RETURN_IF_ERROR(inf.RequireF32(0));
  SRT_RETURN_IF_ERROR(inf.RequireNonEmpty(0, 1));
  Shape out = inf.InShape(0);
  if (out.rank < 3) {
    return NodeError(inf.node, StatusCode::kShape, "input %s must have rank 3 or more",
                     inf.Describe(0).text);
  }
  for (int d = 2; d < out.rank; ++d) out.dims[d] = 1;
  return inf.SetOutput(0, DType::kF32, out);
}

}  // namespace sparsert
