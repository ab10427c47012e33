// The choice of a step that copies no tiles for a Conv over few planes, and of the pool behind it
// that this step computes too.
#include "kernels/wstem/wstem.h"
#include "plan/builder.h"
#include "plan/choose_spmm.h"

namespace sparsert {
namespace {

// Every weight is multiplied with, zero or not.
constexpr double kLeastDensity = 0.5;

}  // namespace

// The node that alone reads `y`, a tensor of its own memory, if it is a max-pool.
bool PlanBuilder::FindPool(uint32_t y, uint32_t* pool, Window* window) const {
  if (!HasOneReader(y, pool)) return false;
  const Node& n = graph.nodes[*pool];
  if (n.op != Op::kMaxPool || n.outputs.size != 1 || n.Input(0) != y) return false;
  const uint32_t pooled = n.outputs[0];
  return concat_parts_[pooled].whole == kNoTensor && !feature_major_[pooled] &&
         facts(y).shape.rank == 4 &&
         ResolveWindow(n, facts(y).shape, n.IntsAttr(AttrKey::k_kernel_shape), window).ok();
}

Status PlanBuilder::ChoosePlanesConv() {
  planes_conv = PlanesConv();
  const Node& n = *node;
  if (n.op != Op::kConv) return Status::Ok();
  const Tensor& weight = graph.tensors[n.Input(1)];
  if (weight.rank != 4 || n.Input(3) != kNoTensor || n.IntAttr(AttrKey::k_group, 1) != 1 ||
      (options.format != kAnyFormat && options.format < kVectorFormat)) {
    return Status::Ok();
  }
  Window w;
  SRT_RETURN_IF_ERROR(ResolveWindow(n, facts(n.Input(0)).shape, {weight.dims + 2, 2}, &w));
  if (w.dilation[0] != 1 || w.dilation[1] != 1) return Status::Ok();
  uint64_t nonzeros = 0;
  SRT_RETURN_IF_ERROR(weights->NonZeros(n.Input(1), &nonzeros));
  const auto all = static_cast<double>(weight.data.rows) * static_cast<double>(weight.data.cols);
  if (static_cast<double>(nonzeros) < kLeastDensity * all) return Status::Ok();
  SRT_RETURN_IF_ERROR(ChooseRowconv(w));
  if (planes_conv.kind != PlanesConv::Kind::kNone) return Status::Ok();
  if (kHasWstem) SRT_RETURN_IF_ERROR(ChooseWstem(w));
  return planes_conv.kind == PlanesConv::Kind::kNone ? ChooseStem(w) : Status::Ok();
}

}  // namespace sparsert
