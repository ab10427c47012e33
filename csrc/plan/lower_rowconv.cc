// Lowers a Conv over a few small planes, and the 2 x 2 max-pool behind it, to one step.
#include <cstdio>

#include "kernels/rowconv/rowconv.h"
#include "plan/builder.h"

namespace sparsert {
namespace {

// Weights of one output channel. With more of them, or with more output channels than these and no
// pool that needs no memory, the tile feed of spmm is paid back.
constexpr int64_t kMostTaps = 64;
constexpr int64_t kFewChannels = 8;
// The copied planes are read from L1 again for every channel.
constexpr size_t kMostBytes = 24 * 1024;
// Output columns per lane of the vectors that hold them.
constexpr double kLeastFill = 0.75;
constexpr int kLanes = 16;

RowconvArgs ArgsOf(const Window& w, int64_t in_channels) {
  RowconvArgs a;
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

bool IsTwoByTwo(const Window& w) {
  for (int d = 0; d < 2; ++d) {
    if (w.kernel[d] != 2 || w.stride[d] != 2 || w.dilation[d] != 1 || w.pad_begin[d] != 0 ||
        w.out[d] * 2 > w.in[d]) {
      return false;
    }
  }
  return true;
}

}  // namespace

Status PlanBuilder::ChooseRowconv(const Window& w) {
  const Node& n = *node;
  const int64_t in_channels = facts(n.Input(0)).shape.dims[1];
  const int64_t taps = in_channels * w.kernel[0] * w.kernel[1];
  if (w.stride[0] != 1 || w.stride[1] != 1) return Status::Ok();
  const double fill = static_cast<double>(w.out[1]) /
                      static_cast<double>((w.out[1] + kLanes - 1) / kLanes * kLanes);
  if (w.kernel[0] * w.kernel[1] == 1 || taps > kMostTaps || fill < kLeastFill ||
      RowconvScratch(ArgsOf(w, in_channels)) > kMostBytes) {
    return Status::Ok();
  }
  uint32_t pool = PlanesConv::kNoPool;
  Window pool_window;
  const bool pools = FindPool(n.outputs[0], &pool, &pool_window) && IsTwoByTwo(pool_window);
  if (!pools && facts(n.outputs[0]).shape.dims[1] > kFewChannels) return Status::Ok();
  planes_conv.kind = PlanesConv::Kind::kRowconv;
  planes_conv.window = w;
  if (pools) planes_conv.pool = pool;
  return Status::Ok();
}

Status LowerRowconv(PlanBuilder* b) {
  const Node& node = *b->node;
  const Window& window = b->planes_conv.window;
  const bool pool = b->planes_conv.pool != PlanesConv::kNoPool;
  const uint32_t x = node.Input(0);
  const uint32_t y = pool ? b->graph.nodes[b->planes_conv.pool].outputs[0] : node.outputs[0];
  const Shape& in = b->facts(x).shape;
  const Shape& out = b->facts(y).shape;
  RowconvArgs* args = nullptr;
  SRT_RETURN_IF_ERROR(b->NewArgs(&args));
  *args = ArgsOf(window, in.dims[1]);
  args->batch = static_cast<int32_t>(out.dims[0]);
  args->channels = static_cast<int32_t>(out.dims[1]);
  args->pool = pool;
  args->x_image = b->desc(x).strides[0];
  args->x_plane = b->desc(x).strides[1];
  args->y_image = b->desc(y).strides[0];
  args->y_plane = b->desc(y).strides[1];
  const void* data = nullptr;
  SRT_RETURN_IF_ERROR(b->ConstantData(node.Input(1), &data));
  args->weights = static_cast<const float*>(data);
  if (node.Input(2) != kNoTensor) {
    SRT_RETURN_IF_ERROR(b->ConstantData(node.Input(2), &data));
    args->bias = static_cast<const float*>(data);
  }
  args->act = FusedActivation(node);
  Kernel kernel;
  if (!SelectRowconv(b->options.isa, &kernel)) {
    return b->Fail(StatusCode::kUnsupported, "no kernel for this instruction set");
  }
  NodePlan& info = b->info();
  info.compute_format = "dense";
  const double taps = static_cast<double>(in.dims[1] * window.kernel[0] * window.kernel[1]);
  snprintf(info.reason, sizeof(info.reason),
           "%.0f weights per channel: too few to copy tiles for%s", taps,
           pool ? "; pools what it computes" : "");
  const double elements = static_cast<double>(args->batch) * args->channels *
                          static_cast<double>(window.out[0] * window.out[1]);
  const IoRef io[] = {b->ref(x), b->ref(y)};
  return b->AddStep(kernel, args, {io, 2}, RowconvItems(*args), RowconvScratch(*args),
                    elements * taps * 0.02);
}

}  // namespace sparsert
