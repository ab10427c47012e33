// Lowers Attention.
#include <cstdio>

#include "graph/resolve.h"
#include "kernels/attention/attention.h"
#include "kernels/loop.h"
#include "plan/builder.h"
#include "plan/choose_layouts.h"

namespace sparsert {
namespace {

// Nanoseconds of a multiply-add, and of a score, about.
constexpr double kMultiplyAddNs = 0.03;
constexpr double kScoreNs = 0.5;

// An operand [batch, heads, tokens, size] or [batch, tokens, heads * size].
AttentionStrides StridesOf(const TensorDesc& x, int64_t size) {
  if (x.shape.rank == 4) return {x.strides[0], x.strides[1], x.strides[2], x.strides[3]};
  return {x.strides[0], size * x.strides[2], x.strides[1], x.strides[2]};
}

// The mask with queries next to each other; a copy unless it is the same for all queries.
Status ReadMask(PlanBuilder* b, uint32_t mask, const Shape& scores, AttentionStrides* strides,
                IoRef* ref) {
  TensorDesc desc = b->desc(mask);
  *ref = b->ref(mask);
  const int rank = desc.shape.rank;
  const bool by_query = rank >= 2 && desc.shape.dims[rank - 2] != 1;
  if (by_query && desc.strides[rank - 2] != 1) {
    TensorDesc turned = desc;
    int64_t stride = 1;
    for (int i = 0; i < rank; ++i) {
      const int d = i == 0 ? rank - 2 : i == 1 ? rank - 1 : rank - 1 - i;
      turned.strides[d] = stride;
      stride *= desc.shape.dims[d];
    }
    IoRef copy;
    SRT_RETURN_IF_ERROR(b->Temporary(static_cast<size_t>(stride) * sizeof(float), &copy));
    SRT_RETURN_IF_ERROR(b->AddCopy(desc, *ref, turned, copy));
    desc = turned;
    *ref = copy;
  }
  int64_t aligned[kMaxRank] = {};
  BroadcastStrides(desc, scores, aligned);
  *strides = {aligned[0], aligned[1], by_query ? aligned[2] : 0, aligned[3]};
  return Status::Ok();
}

}  // namespace

Status LowerAttention(PlanBuilder* b) {
  const Node& node = *b->node;
  const uint32_t y = node.outputs[0];
  AttentionSizes sizes;
  SRT_RETURN_IF_ERROR(ResolveAttention(NodeView(b->graph, b->plan->facts, node), &sizes));
  AttentionArgs* args = nullptr;
  SRT_RETURN_IF_ERROR(b->NewArgs(&args));
  args->batch = sizes.scores.dims[0];
  args->heads = sizes.scores.dims[1];
  args->head_group = sizes.scores.dims[1] / sizes.kv_heads;
  args->queries = sizes.scores.dims[2];
  args->keys = sizes.scores.dims[3];
  args->size = sizes.size;
  args->value_size = sizes.value_size;
  args->alpha = node.FloatAttr(AttrKey::k_alpha, 1.0f);
  args->zero_nan = node.IntAttr(AttrKey::k_zero_nan, 0) != 0;
  args->q = StridesOf(b->desc(node.Input(0)), sizes.size);
  args->k = StridesOf(b->desc(node.Input(1)), sizes.size);
  args->v = StridesOf(b->desc(node.Input(2)), sizes.value_size);
  args->y = StridesOf(b->desc(y), sizes.value_size);
  args->mask = {};
  IoRef mask;
  if (node.Input(3) != kNoTensor) {
    SRT_RETURN_IF_ERROR(ReadMask(b, node.Input(3), sizes.scores, &args->mask, &mask));
  }
  Kernel kernel;
  if (!SelectAttention(*args, b->options.isa, &kernel)) {
    return b->Fail(StatusCode::kInternal, "no kernel for these operands");
  }
  b->info().compute_format = "dense";
  snprintf(b->info().reason, sizeof(b->info().reason), "blocks of queries, each in a lane");
  const double scores = static_cast<double>(sizes.scores.elements());
  const double features = static_cast<double>(sizes.size + sizes.value_size);
  const IoRef io[] = {b->ref(node.Input(0)), b->ref(node.Input(1)), b->ref(node.Input(2)), mask,
                      b->ref(y)};
  return b->AddStep(kernel, args, {io, 5}, AttentionItems(*args), AttentionScratch(*args),
                    scores * (features * kMultiplyAddNs + kScoreNs));
}

}  // namespace sparsert
