// Lowers a Conv over a few large planes, and the 3 x 3 max-pool behind it, to one step of tile
// registers.
#include <algorithm>
#include <cstdio>

#include "kernels/stem/stem.h"
#include "plan/planes_conv.h"

namespace sparsert {
namespace {

// Input channels from which on spmm's copies of tiles are shared by enough products.
constexpr int64_t kMostChannels = 4;
// Of what tile registers multiply, outputs and weights that exist.
constexpr double kLeastUse = 0.5;
// Without a pool there is less to gain, and a single step hides too little of what ends its sums.
constexpr double kLeastUseAlone = 0.7;
constexpr int64_t kLeastSteps = 2;
// The word rows of a strip, of which two lie in L2 beside the weights.
constexpr int64_t kStripBytes = 128 * 1024;
constexpr int64_t kMostWeights = 32 * 1024;
// Nanoseconds of a step of two panels times 32 outputs.
constexpr double kStepNs = 150.0;

StemArgs ArgsOf(const Window& w, int64_t in_channels, int64_t channels) {
  auto a = PlanesArgsOf<StemArgs>(w, in_channels, channels);
  a.stride_h = w.stride[0];
  a.stride_w = w.stride[1];
  return a;
}

double UseOf(const StemArgs& a) {
  const auto outputs = static_cast<double>(a.channels * a.out_h * a.out_w);
  const auto weights = static_cast<double>(a.in_channels * a.kernel_h * a.kernel_w);
  const double units = static_cast<double>((StemPanels(a) + 1) / 2 * StemPairs(a) * StemStrips(a));
  return outputs * weights / (units * static_cast<double>(StemSteps(a)) * (32.0 * 32.0 * 32.0));
}

}  // namespace

Status PlanBuilder::ChooseStem(const Window& w) {
  const Node& n = *node;
  const int64_t in_channels = facts(n.Input(0)).shape.dims[1];
  const int64_t channels = facts(n.outputs[0]).shape.dims[1];
  Kernel kernel;
  if (!SelectStem(options.isa, &kernel) || in_channels > kMostChannels || w.stride[1] > 2 ||
      w.kernel[1] > kStemMaxKernel || w.kernel[0] * w.kernel[1] == 1 ||
      facts(n.outputs[0]).shape.elements() == 0) {
    return Status::Ok();
  }
  const StemArgs args = ArgsOf(w, in_channels, channels);
  const double use = UseOf(args);
  if (StemPackedFloats(args) > kMostWeights || use < kLeastUse) return Status::Ok();
  uint32_t pool = PlanesConv::kNoPool;
  Window pool_window;
  const bool pools = KeepsOrder(FusedActivation(n).fn) &&
                     FindPool(n.outputs[0], &pool, &pool_window) && IsStemPool(pool_window);
  if (!pools && (StemSteps(args) < kLeastSteps || use < kLeastUseAlone)) return Status::Ok();
  planes_conv.kind = PlanesConv::Kind::kStem;
  planes_conv.window = w;
  if (pools) planes_conv.pool = pool;
  return Status::Ok();
}

Status LowerStem(PlanBuilder* b) {
  StemArgs* args = nullptr;
  SRT_RETURN_IF_ERROR(b->NewArgs(&args));
  SRT_RETURN_IF_ERROR(FillStemArgs(b, args));
  const uint32_t y = PlanesConvOutput(*b);
  const auto floats = static_cast<size_t>(StemPackedFloats(*args));
  auto* packed = b->plan->memory.Allocate<float>(floats);
  if (packed == nullptr) return Status::OutOfMemory("packed weights", floats * sizeof(float));
  PackStem(*args, packed);
  args->packed = packed;

  // Bands of which a strip stays near, and as many for each thread.
  const int64_t strip = StemFloatsOf(*args).words * static_cast<int64_t>(sizeof(float));
  const int64_t threads = b->options.threads;
  int64_t bands = (strip + kStripBytes - 1) / kStripBytes;
  if (args->batch % threads != 0) bands = (bands + threads - 1) / threads * threads;
  args->bands = static_cast<int32_t>(std::min(bands, StemPairs(*args)));

  Kernel kernel;
  if (!SelectStem(b->options.isa, &kernel)) {
    return b->Fail(StatusCode::kUnsupported, "no kernel for this instruction set");
  }
  NodePlan& info = b->info();
  info.compute_format = "dense";
  info.packed_bytes = floats * sizeof(float);
  snprintf(info.reason, sizeof(info.reason), "%d input planes, cut where they lie%s",
           args->in_channels, args->pool ? "; pools what it computes" : "");
  const double units = static_cast<double>(args->batch) *
                       static_cast<double>((StemPanels(*args) + 1) / 2 * StemPairs(*args) *
                                           StemStrips(*args) * StemSteps(*args));
  const IoRef io[] = {b->ref(b->node->Input(0)), b->ref(y)};
  return b->AddStep(kernel, args, {io, 2}, StemItems(*args), StemScratch(*args), units * kStepNs);
}

}  // namespace sparsert
