// Lowers the ops that read images at places which data gives.
#include <cstdio>

#include "graph/resolve.h"
#include "kernels/sample/sample.h"
#include "plan/builder.h"

namespace sparsert {
namespace {

// About what a tap of a point of a channel takes.
constexpr double kTapNs = 0.5;

Status NoKernel(const PlanBuilder& b) {
  return b.Fail(StatusCode::kInternal, "no kernel for these operands");
}

double Elements(const PlanBuilder& b, uint32_t tensor) {
  return static_cast<double>(b.facts(tensor).shape.elements());
}

Status LowerGridSample(PlanBuilder* b) {
  const Node& node = *b->node;
  const uint32_t x = node.inputs[0];
  const uint32_t y = node.outputs[0];
  GridSampleArgs* args = nullptr;
  SRT_RETURN_IF_ERROR(b->NewArgs(&args));
  *args =
      MakeGridSampleArgs(static_cast<ResizeMode>(node.IntAttr(AttrKey::k_mode, 0)),
                         static_cast<GridPadding>(node.IntAttr(AttrKey::k_padding_mode, 0)),
                         node.IntAttr(AttrKey::k_align_corners, 0) != 0, b->desc(x), b->desc(y));
  Kernel kernel;
  if (!SelectGridSample(*args, b->options.isa, &kernel)) return NoKernel(*b);
  IoRef io[3] = {b->ref(x), IoRef(), b->ref(y)};
  SRT_RETURN_IF_ERROR(b->Plain(node.inputs[1], &io[1]));
  double taps = 1.0;
  const double per_axis = args->mode == ResizeMode::kNearest  ? 1.0
                          : args->mode == ResizeMode::kLinear ? 2.0
                                                              : 4.0;
  for (int a = 0; a < args->axes; ++a) taps *= per_axis;
  return b->AddStep(kernel, args, {io, 3}, GridSampleItems(*args), SampleScratchBytes(),
                    Elements(*b, y) * taps * kTapNs);
}

Status LowerRoiAlign(PlanBuilder* b) {
  const Node& node = *b->node;
  const uint32_t x = node.inputs[0];
  const uint32_t y = node.outputs[0];
  RoiAlignArgs* args = nullptr;
  SRT_RETURN_IF_ERROR(b->NewArgs(&args));
  const auto coordinates =
      static_cast<RoiCoordinates>(node.IntAttr(AttrKey::k_coordinate_transformation_mode, 0));
  *args = MakeRoiAlignArgs(static_cast<RoiMode>(node.IntAttr(AttrKey::k_mode, 0)),
                           coordinates == RoiCoordinates::kHalfPixel,
                           node.IntAttr(AttrKey::k_sampling_ratio, 0),
                           node.FloatAttr(AttrKey::k_spatial_scale, 1.0f), b->desc(x), b->desc(y));
  Kernel kernel;
  if (!SelectRoiAlign(*args, b->options.isa, &kernel)) return NoKernel(*b);
  IoRef io[5] = {b->ref(x), IoRef(), IoRef(), b->ref(y), FaultRef()};
  SRT_RETURN_IF_ERROR(b->Plain(node.inputs[1], &io[1]));
  SRT_RETURN_IF_ERROR(b->Plain(node.inputs[2], &io[2]));
  return b->AddStep(kernel, args, {io, 5}, RoiAlignItems(*args), SampleScratchBytes(),
                    Elements(*b, y) * 16.0 * kTapNs);
}

Status LowerDeformColumns(PlanBuilder* b) {
  const Node& node = *b->node;
  const uint32_t x = node.inputs[0];
  const uint32_t y = node.outputs[0];
  Window window;
  SRT_RETURN_IF_ERROR(
      ResolveWindow(node, b->facts(x).shape, node.IntsAttr(AttrKey::k_kernel_shape), &window));
  DeformArgs* args = nullptr;
  SRT_RETURN_IF_ERROR(b->NewArgs(&args));
  args->images = b->facts(x).shape.dims[0];
  args->groups = node.IntAttr(AttrKey::k_group, 1);
  const TensorDesc& from = b->desc(x);
  const TensorDesc& to = b->desc(y);
  args->planes = {from.shape.dims[1] / args->groups,
                  from.strides[0],
                  from.strides[1],
                  to.strides[0],
                  to.strides[1],
                  to.plane()};
  for (int a = 0; a < 2; ++a) {
    args->in[a] = window.in[a];
    args->out[a] = window.out[a];
    args->kernel[a] = window.kernel[a];
    args->stride[a] = window.stride[a];
    args->dilation[a] = window.dilation[a];
    args->pad[a] = window.pad_begin[a];
  }
  Kernel kernel;
  if (!SelectDeform(*args, b->options.isa, &kernel)) return NoKernel(*b);
  IoRef io[4] = {b->ref(x), IoRef(), IoRef(), b->ref(y)};
  SRT_RETURN_IF_ERROR(b->Plain(node.inputs[1], &io[1]));
  if (node.Input(2) != kNoTensor) SRT_RETURN_IF_ERROR(b->Plain(node.inputs[2], &io[2]));
  return b->AddStep(kernel, args, {io, 4}, DeformItems(*args), SampleScratchBytes(),
                    Elements(*b, y) * 4.0 * kTapNs);
}

}  // namespace

Status LowerSample(PlanBuilder* b) {
  snprintf(b->info().reason, sizeof(b->info().reason),
           "the places of a block of points are found once for all channels");
  if (b->facts(b->node->outputs[0]).shape.elements() == 0) return Status::Ok();
  switch (b->node->op) {
    case Op::kGridSample:
      return LowerGridSample(b);
    case Op::kRoiAlign:
      return LowerRoiAlign(b);
    default:
      return LowerDeformColumns(b);
  }
}

}  // namespace sparsert
