// Lowers Attention.
#include <cmath>
#include <cstdio>

#include "graph/resolve.h"
#include "kernels/attention/attention.h"
#include "kernels/loop.h"
#include "kernels/qattention/qattention.h"
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

Status ReadSteps(PlanBuilder* b, uint32_t tensor, bool y_is_float, QattentionArgs* args) {
  const float* value = nullptr;
  SRT_RETURN_IF_ERROR(b->ConstantFloats(tensor, &value));
  for (int i = 0; i < kAttentionSteps; ++i, value += 5) {
    const bool needs_scale = i == 3 || (i == 4 && !y_is_float);
    bool good = std::isfinite(value[0]) && std::isfinite(value[1]) && value[1] >= 0.0f &&
                (value[1] > 0.0f || !needs_scale) && value[3] <= value[4];
    good = good && (value[1] == 0.0f || std::isfinite(1.0f / value[1]));
    for (int j = 2; j < 5; ++j) {
      good = good && value[j] >= 0.0f && value[j] <= 255.0f && value[j] == std::floor(value[j]);
    }
    if (!good) {
      return b->Fail(StatusCode::kUnsupported,
                     "a step of attention must be a finite factor, a scale, and a zero point and "
                     "bounds from 0 to 255");
    }
    const float inverse = value[1] > 0.0f ? 1.0f / value[1] : 0.0f;
    args->steps[i] = {value[0],
                      value[1],
                      inverse,
                      static_cast<int32_t>(value[2]),
                      static_cast<int32_t>(value[3]),
                      static_cast<int32_t>(value[4])};
  }
  return Status::Ok();
}

PlaneStrides PlanesOf(const TensorDesc& x) { return {x.strides[0], x.strides[1]}; }

}  // namespace

Status LowerQattention(PlanBuilder* b) {
  const Node& node = *b->node;
  const uint32_t y = node.outputs[0];
  const Shape& q = b->facts(node.Input(0)).shape;
  const Shape& v = b->facts(node.Input(2)).shape;
  QattentionArgs* args = nullptr;
  SRT_RETURN_IF_ERROR(b->NewArgs(&args));
  args->y_is_float = b->facts(y).dtype == DType::kF32;
  SRT_RETURN_IF_ERROR(ReadSteps(b, node.Input(3), args->y_is_float, args));
  args->batch = q.dims[0];
  args->heads = node.IntAttr(AttrKey::k_heads, 1);
  args->queries = q.dims[2];
  args->keys = v.dims[2];
  args->planes = q.dims[1] / args->heads;
  args->value_planes = v.dims[1] / args->heads;
  if (args->keys > kQattentionTerms || 4 * args->planes > kQattentionTerms) {
    return b->Fail(StatusCode::kUnsupported, "sums may exceed 32 bits");
  }
  args->q = PlanesOf(b->desc(node.Input(0)));
  args->k = PlanesOf(b->desc(node.Input(1)));
  args->v = PlanesOf(b->desc(node.Input(2)));
  args->y = PlanesOf(b->desc(y));
  const Span<int64_t> zeros = node.IntsAttr(AttrKey::k_quant);
  args->q_zero = static_cast<int32_t>(zeros[0]);
  args->k_zero = static_cast<int32_t>(zeros[1]);
  args->v_zero = static_cast<int32_t>(zeros[2]);
  args->mask = {};
  IoRef mask;
  if (node.Input(4) != kNoTensor) {
    Shape scores = q;
    scores.rank = 4;
    scores.dims[1] = args->heads;
    scores.dims[3] = args->keys;
    AttentionStrides strides;
    SRT_RETURN_IF_ERROR(ReadMask(b, node.Input(4), scores, &strides, &mask));
    args->mask = {strides.batch, strides.head, strides.token, strides.size};
  }
  Kernel kernel;
  if (!SelectQattention(b->options.isa, &kernel)) {
    return b->Fail(StatusCode::kInternal, "no kernel for these operands");
  }
  b->info().compute_format = "dense";
  snprintf(b->info().reason, sizeof(b->info().reason), "products of bytes, queries in lanes");
  const double scores = static_cast<double>(args->batch * args->heads * args->queries) *
                        static_cast<double>(args->keys);
  const double features = 4.0 * static_cast<double>(args->planes + args->value_planes);
  const IoRef io[] = {b->ref(node.Input(0)), b->ref(node.Input(1)), b->ref(node.Input(2)), mask,
                      b->ref(y)};
  return b->AddStep(kernel, args, {io, 5}, QattentionItems(*args), QattentionScratch(*args),
                    scores * (features * kMultiplyAddNs * 0.25 + kScoreNs));
}

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
