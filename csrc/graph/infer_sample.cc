// Shape rules of the ops that read images at places which data gives.
#include "graph/infer_rules.h"

namespace sparsert {
namespace {

// Kernels index the elements of a plane with int32.
constexpr int64_t kMaxPlane = int64_t{1} << 30;

Status DoNotFit(const Inference& inf, size_t i) {
  return NodeError(inf.node, StatusCode::kShape, "input %s does not fit input %s",
                   inf.Describe(i).text, inf.Describe(0).text);
}

// Images [N, C, ...] with elements to read.
Status CheckImages(const Inference& inf, int min_rank, int max_rank) {
  SRT_RETURN_IF_ERROR(inf.RequireF32(0));
  const Shape& x = inf.InShape(0);
  if (x.rank < min_rank || x.rank > max_rank) {
    return NodeError(inf.node, StatusCode::kShape, "input %s must have rank %d to %d",
                     inf.Describe(0).text, min_rank, max_rank);
  }
  int64_t plane = 1;
  for (int d = 2; d < x.rank; ++d) plane *= x.dims[d];
  if (plane < 1 || plane > kMaxPlane) {
    return NodeError(inf.node, StatusCode::kShape, "the images of input %s are empty or too large",
                     inf.Describe(0).text);
  }
  return Status::Ok();
}

}  // namespace

Status InferGridSample(const Inference& inf) {
  SRT_RETURN_IF_ERROR(CheckImages(inf, 3, 5));
  SRT_RETURN_IF_ERROR(inf.RequireF32(1));
  const Shape& x = inf.InShape(0);
  const Shape& grid = inf.InShape(1);
  const int spatial = x.rank - 2;
  if (grid.rank != x.rank || grid.dims[0] != x.dims[0] || grid.dims[grid.rank - 1] != spatial) {
    return DoNotFit(inf, 1);
  }
  if (spatial == 3 &&
      inf.node.IntAttr(AttrKey::k_mode, 0) == static_cast<int64_t>(ResizeMode::kCubic)) {
    return NodeError(inf.node, StatusCode::kUnsupported, "cubic needs input %s of rank 3 or 4",
                     inf.Describe(0).text);
  }
  Shape out = x;
  for (int d = 0; d < spatial; ++d) out.dims[2 + d] = grid.dims[1 + d];
  return inf.SetOutput(0, DType::kF32, out);
}

Status InferRoiAlign(const Inference& inf) {
  SRT_RETURN_IF_ERROR(CheckImages(inf, 4, 4));
  SRT_RETURN_IF_ERROR(inf.RequireF32(1));
  const Shape& rois = inf.InShape(1);
  const Shape& batch = inf.InShape(2);
  if (rois.rank != 2 || rois.dims[1] != 4) return DoNotFit(inf, 1);
  if (inf.In(2).dtype != DType::kI64 || batch.rank != 1 || batch.dims[0] != rois.dims[0]) {
    return DoNotFit(inf, 2);
  }
  const Span<int64_t> size = inf.node.IntsAttr(AttrKey::k_output_shape);
  if (size.size != 2) {
    return NodeError(inf.node, StatusCode::kModelFormat, "output_shape must have 2 values");
  }
  Shape out = inf.InShape(0);
  out.dims[0] = rois.dims[0];
  out.dims[2] = size[0];
  out.dims[3] = size[1];
  return inf.SetOutput(0, DType::kF32, out);
}

Status InferDeformColumns(const Inference& inf) {
  SRT_RETURN_IF_ERROR(CheckImages(inf, 4, 4));
  const Shape& x = inf.InShape(0);
  const Span<int64_t> kernel = inf.node.IntsAttr(AttrKey::k_kernel_shape);
  Window window;
  SRT_RETURN_IF_ERROR(ResolveWindow(inf.node, x, kernel, &window));
  int64_t taps = 0;
  const int64_t group = inf.node.IntAttr(AttrKey::k_group, 1);
  if (group < 1 || x.dims[1] % group != 0 || !MulElements(kernel[0], kernel[1], &taps)) {
    return NodeError(inf.node, StatusCode::kShape, "%lld groups of the channels of input %s",
                     static_cast<long long>(group), inf.Describe(0).text);
  }
  for (size_t i = 1; i < 3; ++i) {
    if (!inf.Has(i)) continue;
    SRT_RETURN_IF_ERROR(inf.RequireF32(i));
    const Shape& s = inf.InShape(i);
    int64_t channels = 0;
    if (!MulElements(taps, group * (i == 1 ? 2 : 1), &channels) || s.rank != 4 ||
        s.dims[0] != x.dims[0] || s.dims[1] != channels || s.dims[2] != window.out[0] ||
        s.dims[3] != window.out[1]) {
      return DoNotFit(inf, i);
    }
  }
  Shape out = x;
  if (!MulElements(x.dims[1], taps, &out.dims[1])) return DoNotFit(inf, 0);
  out.dims[2] = window.out[0];
  out.dims[3] = window.out[1];
  return inf.SetOutput(0, DType::kF32, out);
}

}  // namespace sparsert
