// Lowers a Conv of 7 x 7 and stride 2 over a few large planes, and the 3 x 3 max-pool behind it, to
// one step of Winograd's products.
#include <algorithm>
#include <cstdio>

#include "kernels/wstem/wstem.h"
#include "plan/planes_conv.h"

#if defined(SRT_X86)  // see kHasWstem

namespace sparsert {
namespace {

// Input channels from which on a strip's transformed inputs fill L2; output channels up to which
// they are not paid back; patches of a row up to which vectors are mostly empty.
constexpr int64_t kMostChannels = 4;
constexpr int64_t kFewChannels = 16;
constexpr int64_t kFewPatches = 6;
// Nanoseconds of a vector's multiply-add, where a cycle starts one, and with what goes with it.
constexpr double kProductNs = 0.35;
constexpr int64_t kBandsOfThread = 2;

}  // namespace

Status PlanBuilder::ChooseWstem(const Window& w) {
  const Node& n = *node;
  Kernel kernel;
  // On other cores it has not been compared with spmm.
  if (!options.cpu.halves_vectors || !SelectWstem(options.isa, &kernel)) return Status::Ok();
  for (int d = 0; d < 2; ++d) {
    if (w.kernel[d] != kWstemKernel || w.stride[d] != 2) return Status::Ok();
  }
  const Shape& out = facts(n.outputs[0]).shape;
  if (facts(n.Input(0)).shape.dims[1] > kMostChannels || out.dims[1] < kFewChannels ||
      out.elements() == 0 || w.out[1] < 2 * kFewPatches) {
    return Status::Ok();
  }
  planes_conv.kind = PlanesConv::Kind::kWstem;
  planes_conv.window = w;
  uint32_t pool = PlanesConv::kNoPool;
  Window pool_window;
  if (KeepsOrder(FusedActivation(n).fn) && FindPool(n.outputs[0], &pool, &pool_window) &&
      IsStemPool(pool_window)) {
    planes_conv.pool = pool;
  }
  return Status::Ok();
}

Status LowerWstem(PlanBuilder* b) {
  StemArgs* args = nullptr;
  SRT_RETURN_IF_ERROR(b->NewArgs(&args));
  SRT_RETURN_IF_ERROR(FillStemArgs(b, args));
  const auto floats = static_cast<size_t>(WstemPackedFloats(*args));
  auto* packed = b->plan->memory.Allocate<float>(floats);
  if (packed == nullptr) return Status::OutOfMemory("packed weights", floats * sizeof(float));
  args->packed = PackWstem(*args, packed) ? packed : nullptr;

  const int64_t threads = b->options.threads;
  const int64_t bands = args->batch % threads == 0 ? 1 : kBandsOfThread * threads;
  args->bands = static_cast<int32_t>(std::min(bands, StemPairs(*args)));

  Kernel kernel;
  if (!SelectWstem(b->options.isa, &kernel)) {
    return b->Fail(StatusCode::kUnsupported, "no kernel for this instruction set");
  }
  NodePlan& info = b->info();
  info.compute_format = "dense";
  info.packed_bytes = floats * sizeof(float);
  snprintf(info.reason, sizeof(info.reason), "%d input planes, by Winograd: 81 products for 196%s",
           args->in_channels, args->pool ? "; pools what it computes" : "");
  const double products =
      static_cast<double>(args->batch) *
      static_cast<double>(WstemPackedFloats(*args) * StemPairs(*args) * WstemPatchVecs(*args));
  const IoRef io[] = {b->ref(b->node->Input(0)), b->ref(PlanesConvOutput(*b))};
  return b->AddStep(kernel, args, {io, 2}, StemItems(*args), WstemScratch(*args),
                    products * kProductNs);
}

}  // namespace sparsert

#endif
