// Lowers a Conv over a few small planes, and the 2 x 2 max-pool behind it, to one step.
#include <cstdio>

#include "kernels/rowconv/rowconv.h"
#include "plan/planes_conv.h"

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

// The pool that the kernel knows, whose windows lie inside the plane.
bool IsRowconvPool(const Window& w) {
  return IsPoolOf(w, 2, 0) && w.out[0] * 2 <= w.in[0] && w.out[1] * 2 <= w.in[1];
}

}  // namespace

Status PlanBuilder::ChooseRowconv(const Window& w) {
  const Node& n = *node;
  const int64_t in_channels = facts(n.Input(0)).shape.dims[1];
  const int64_t channels = facts(n.outputs[0]).shape.dims[1];
  const int64_t taps = in_channels * w.kernel[0] * w.kernel[1];
  if (w.stride[0] != 1 || w.stride[1] != 1) return Status::Ok();
  const double fill = static_cast<double>(w.out[1]) /
                      static_cast<double>((w.out[1] + kLanes - 1) / kLanes * kLanes);
  if (w.kernel[0] * w.kernel[1] == 1 || taps > kMostTaps || fill < kLeastFill ||
      RowconvScratch(PlanesArgsOf<RowconvArgs>(w, in_channels, channels)) > kMostBytes) {
    return Status::Ok();
  }
  uint32_t pool = PlanesConv::kNoPool;
  Window pool_window;
  const bool pools = FindPool(n.outputs[0], &pool, &pool_window) && IsRowconvPool(pool_window);
  if (!pools && channels > kFewChannels) return Status::Ok();
  planes_conv.kind = PlanesConv::Kind::kRowconv;
  planes_conv.window = w;
  if (pools) planes_conv.pool = pool;
  return Status::Ok();
}

Status LowerRowconv(PlanBuilder* b) {
  RowconvArgs* args = nullptr;
  SRT_RETURN_IF_ERROR(b->NewArgs(&args));
  SRT_RETURN_IF_ERROR(FillPlanesArgs(b, args));
  Kernel kernel;
  if (!SelectRowconv(b->options.isa, &kernel)) {
    return b->Fail(StatusCode::kUnsupported, "no kernel for this instruction set");
  }
  NodePlan& info = b->info();
  info.compute_format = "dense";
  const double taps = static_cast<double>(args->in_channels * args->kernel_h * args->kernel_w);
  snprintf(info.reason, sizeof(info.reason),
           "%.0f weights per channel: too few to copy tiles for%s", taps,
           args->pool ? "; pools what it computes" : "");
  const double elements = static_cast<double>(args->batch) * args->channels *
                          static_cast<double>(args->out_h * args->out_w);
  const IoRef io[] = {b->ref(b->node->Input(0)), b->ref(PlanesConvOutput(*b))};
  return b->AddStep(kernel, args, {io, 2}, RowconvItems(*args), RowconvScratch(*args),
                    elements * taps * 0.02);
}

}  // namespace sparsert
