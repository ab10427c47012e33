// Lowers Conv and ConvTranspose: depthwise, matrix (single elements), winograd or spmm.
#include <algorithm>
#include <cstdio>

#include "kernels/dwconv/dwconv.h"
#include "plan/builder.h"
#include "plan/conv_operands.h"
#include "plan/lower_output_phases.h"
#include "plan/lower_winograd.h"

namespace sparsert {
namespace {

// Planes of more columns are cut into bands for the threads; smaller ones they share by planes.
constexpr int64_t kBandColumns = 1024;

// Whether rows of the input are read one by one: by several rows of the output each, as successive
// columns or every second one.
bool ReadsRows(const Window& w) {
  constexpr int64_t kMinRows = 4;
  const bool dense = w.stride[0] == 1 && w.stride[1] == 1;
  const bool halved =
      w.stride[0] == 2 && w.stride[1] == 2 && w.dilation[0] == 1 && w.dilation[1] == 1;
  const bool small = w.kernel[0] == w.kernel[1] && w.kernel[0] <= 5;
  return (dense || halved) && (small || w.out[0] >= kMinRows);
}

Status LowerDepthwise(PlanBuilder* b, const Window& window, int64_t multiplier) {
  const Node& node = *b->node;
  const uint32_t x = node.Input(0);
  const uint32_t r = node.Input(3);
  const uint32_t y = node.outputs[0];
  const Shape& out = b->facts(y).shape;

  Kernel kernel;
  int lanes = 0;
  if (!SelectDwconv(b->options.isa, &kernel, &lanes)) {
    return b->Fail(StatusCode::kUnsupported, "no depthwise kernel for this instruction set");
  }
  DwconvArgs* args = nullptr;
  SRT_RETURN_IF_ERROR(b->NewArgs(&args));
  args->batch = static_cast<int32_t>(out.dims[0]);
  args->channels = static_cast<int32_t>(out.dims[1]);
  args->multiplier = static_cast<int32_t>(multiplier);
  args->columns = window.out[0] * window.out[1];
  const Tiling tiling = MakeTiling(args->columns, lanes, kDwconvMaxVecs, kDwconvMaxVecs);
  args->tiles = tiling.tiles;
  args->vecs = tiling.vecs;
  args->by_rows = ReadsRows(window);
  if (args->by_rows) {
    args->kernel_h = window.kernel[0];
    args->kernel_w = window.kernel[1];
    args->stride_h = window.stride[0];
    args->stride_w = window.stride[1];
    args->dilation_h = window.dilation[0];
    args->dilation_w = window.dilation[1];
    PlaceWindow(window, args);
    if (args->batch < b->options.threads && args->columns > kBandColumns) {
      args->bands = static_cast<int32_t>(std::min<int64_t>(b->options.threads, args->out_h));
    }
  } else {
    SRT_RETURN_IF_ERROR(b->Taps(window, false, false, tiling, &args->taps));
  }
  PlaceInOut(b->desc(x), b->desc(y), args);
  if (r != kNoTensor) {
    const Planes pr = PlanesOf(b->desc(r));
    args->r_image = pr.image;
    args->r_plane = pr.plane;
  }
  SRT_RETURN_IF_ERROR(b->ConstantFloats(node.Input(1), &args->weights));
  SRT_RETURN_IF_ERROR(b->ConstantFloats(node.Input(2), &args->bias));
  args->act = FusedActivation(node);

  NodePlan& info = b->info();
  info.compute_format = "dense";
  const double taps = static_cast<double>(window.kernel[0] * window.kernel[1]);
  snprintf(info.reason, sizeof(info.reason), "depthwise: %.0f weights per channel, computed dense",
           taps);
  const IoRef io[] = {b->ref(x), b->ref(r), b->ref(y)};
  const double work_ns = static_cast<double>(DwconvItems(*args)) * tiling.vecs * taps * 0.5;
  SRT_RETURN_IF_ERROR(b->AddStep(kernel, args, {io, 3}, DwconvItems(*args), 0, work_ns));
  PlaneStep step;
  step.depthwise = args;
  step.lanes = lanes;
  return b->NotePlaneStep(step);
}

}  // namespace

Status LowerConv(PlanBuilder* b) {
  const Node& node = *b->node;
  const bool transposed = node.op == Op::kConvTranspose;
  const uint32_t x = node.Input(0);
  const uint32_t w = node.Input(1);
  const uint32_t r = transposed ? kNoTensor : node.Input(3);
  const uint32_t y = node.outputs[0];
  const Shape& in = b->facts(x).shape;
  const Shape& out = b->facts(y).shape;
  const Tensor& weights = b->graph.tensors[w];
  const int64_t groups = node.IntAttr(AttrKey::k_group, 1);

  Window window;
  const Span<int64_t> kernel_shape = {weights.dims + 2, static_cast<size_t>(weights.rank - 2)};
  SRT_RETURN_IF_ERROR(transposed ? ResolveTransposedWindow(node, in, kernel_shape, &window)
                                 : ResolveWindow(node, in, kernel_shape, &window));
  const int64_t channels_in = in.dims[1];
  const int64_t channels_out = out.dims[1];
  if (!transposed && groups == channels_in && groups > 1) {
    return LowerDepthwise(b, window, channels_out / channels_in);
  }

  if (transposed && HasOutputPhases(window, groups)) return LowerOutputPhases(b, window);

  const Planes px = PlanesOf(b->desc(x));
  const Planes py = PlanesOf(b->desc(y));
  const int64_t plane = window.out[0] * window.out[1];
  const bool pointwise = IsPointwise(window);
  if (pointwise && plane == 1 && groups == 1 && !transposed) {
    LinearOperands operands;
    operands.w = w;
    operands.bias = node.Input(2);
    operands.batch = in.dims[0];
    SRT_RETURN_IF_ERROR(b->Plain(x, &operands.x));
    if (r != kNoTensor) SRT_RETURN_IF_ERROR(b->Plain(r, &operands.r));
    operands.y = b->ref(y);
    operands.has_residual = r != kNoTensor;
    operands.act = FusedActivation(node);
    return LowerMatrix(b, operands);
  }

  SpmmOperands o;
  o.key.tensor = w;
  o.key.groups = static_cast<int32_t>(groups);
  o.key.taps = static_cast<int32_t>(window.kernel[0] * window.kernel[1]);
  o.key.transposed = transposed;
  o.window = window;
  o.batch = in.dims[0];
  o.columns = plane;
  // Direct rows are read whole vectors at a time: the plane must be padded for it.
  o.may_be_direct =
      pointwise && px.plane >= (plane + 15) / 16 * 16 && b->ref(x).kind == IoRef::kArena;
  o.x_image = px.image;
  o.x_row = px.plane;
  o.x_group = px.plane * (channels_in / groups);
  o.y_image = py.image;
  o.y_row = py.plane;
  o.y_group = py.plane * (channels_out / groups);
  if (r != kNoTensor) {
    const Planes pr = PlanesOf(b->desc(r));
    o.r_image = pr.image;
    o.r_row = pr.plane;
    o.r_group = pr.plane * (channels_out / groups);
  }
  o.x = b->ref(x);
  o.r = b->ref(r);
  o.y = b->ref(y);
  o.bias = node.Input(2);
  o.act = FusedActivation(node);
  b->PlaceTiles(&o);
  if (!transposed) {
    // Pieces are read whole vectors at a time, too; planes in tiles always are padded.
    const int64_t plane_in = window.in[0] * window.in[1];
    const bool padded = px.plane >= (plane_in + 15) / 16 * 16 && b->ref(x).kind == IoRef::kArena;
    if (kHasTiledPlanes && IsSubsampled(window) && padded) {
      SRT_RETURN_IF_ERROR(SubsampleColumns(b, channels_in, b->TilingOf(x), &o));
    } else if (GainsByPhases(window)) {
      SRT_RETURN_IF_ERROR(AddPhases(b, channels_in, &o));
    }
  }
  return LowerConvolution(b, o);
}

}  // namespace sparsert
