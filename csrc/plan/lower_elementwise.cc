// Lowers Unary, Binary, PRelu, BatchNormalization, Cast, Where and Compare.
#include <cstdio>

#include "kernels/batch_norm/batch_norm.h"
#include "kernels/binary/binary.h"
#include "kernels/cast/cast.h"
#include "kernels/compare/compare.h"
#include "kernels/integer/integer.h"
#include "kernels/prelu/prelu.h"
#include "kernels/unary/unary.h"
#include "kernels/where/where.h"
#include "plan/builder.h"

namespace sparsert {
namespace {

// Nanoseconds per element, about: cheap functions wait for memory, others compute.
double UnaryNs(UnaryFn fn) {
  return fn == UnaryFn::kNone || fn == UnaryFn::kRelu || fn == UnaryFn::kClip ? 0.15 : 0.8;
}

Status NoKernel(const PlanBuilder& b) {
  return b.Fail(StatusCode::kInternal, "no kernel for these operands");
}

Status LowerInteger(PlanBuilder* b) {
  const Node& node = *b->node;
  const uint32_t y = node.outputs[0];
  if (node.IntAttr(AttrKey::k_act, 0) != 0) {
    return b->Fail(StatusCode::kUnsupported, "activations are applied to float32 only");
  }
  IntegerArgs* args = nullptr;
  SRT_RETURN_IF_ERROR(b->NewArgs(&args));
  *args = MakeIntegerArgs(static_cast<BinaryFn>(node.IntAttr(AttrKey::k_fn, 0)),
                          b->desc(node.Input(0)), b->desc(node.Input(1)), b->desc(y));
  Kernel kernel;
  if (!SelectInteger(*args, b->options.isa, &kernel)) return NoKernel(*b);
  const IoRef io[] = {b->ref(node.Input(0)), b->ref(node.Input(1)), b->ref(y)};
  return b->AddStep(kernel, args, {io, 3}, IntegerItems(*args), 0,
                    static_cast<double>(b->facts(y).shape.elements()) * 1.0);
}

}  // namespace

Status LowerElementwise(PlanBuilder* b) {
  const Node& node = *b->node;
  const uint32_t x = node.Input(0);
  const uint32_t y = node.outputs[0];
  const double elements = static_cast<double>(b->facts(y).shape.elements());
  snprintf(b->info().reason, sizeof(b->info().reason), "elementwise, bound by memory");
  Kernel kernel;
  switch (node.op) {
    case Op::kUnary: {
      Activation fn;
      fn.fn = static_cast<UnaryFn>(node.IntAttr(AttrKey::k_fn, 0));
      fn.alpha = node.FloatAttr(AttrKey::k_alpha, 0.0f);
      fn.beta = node.FloatAttr(AttrKey::k_beta, 0.0f);
      UnaryArgs* args = nullptr;
      SRT_RETURN_IF_ERROR(b->NewArgs(&args));
      *args = MakeUnaryArgs(b->desc(x), b->desc(y), fn);
      if (!SelectUnary(*args, b->options.isa, &kernel)) return NoKernel(*b);
      const IoRef io[] = {b->ref(x), b->ref(y)};
      return b->AddStep(kernel, args, {io, 2}, UnaryItems(*args), 0, elements * UnaryNs(fn.fn));
    }
    case Op::kBinary: {
      const uint32_t other = node.Input(1);
      if (b->facts(y).dtype != DType::kF32) return LowerInteger(b);
      BinaryArgs* args = nullptr;
      SRT_RETURN_IF_ERROR(b->NewArgs(&args));
      *args = MakeBinaryArgs(static_cast<BinaryFn>(node.IntAttr(AttrKey::k_fn, 0)), b->desc(x),
                             b->desc(other), b->desc(y), FusedActivation(node));
      if (!SelectBinary(*args, b->options.isa, &kernel)) return NoKernel(*b);
      const IoRef io[] = {b->ref(x), b->ref(other), b->ref(y)};
      return b->AddStep(kernel, args, {io, 3}, BinaryItems(*args), 0, elements * 0.25);
    }
    case Op::kPRelu: {
      const uint32_t slope = node.Input(1);
      PReluArgs* args = nullptr;
      SRT_RETURN_IF_ERROR(b->NewArgs(&args));
      *args = MakePReluArgs(b->desc(x), b->desc(slope), b->desc(y));
      if (!SelectPRelu(*args, b->options.isa, &kernel)) return NoKernel(*b);
      const IoRef io[] = {b->ref(x), b->ref(slope), b->ref(y)};
      return b->AddStep(kernel, args, {io, 3}, PReluItems(*args), 0, elements * 0.25);
    }
    case Op::kBatchNormalization: {
      BatchNormArgs* args = nullptr;
      SRT_RETURN_IF_ERROR(b->NewArgs(&args));
      *args = MakeBatchNormArgs(b->desc(x), b->desc(y), FusedActivation(node));
      if (!SelectBatchNorm(*args, b->options.isa, &kernel)) return NoKernel(*b);
      const IoRef io[] = {b->ref(x), b->ref(node.Input(1)), b->ref(node.Input(2)), b->ref(y)};
      return b->AddStep(kernel, args, {io, 4}, BatchNormItems(*args), 0, elements * 0.25);
    }
    case Op::kWhere: {
      const uint32_t yes = node.Input(1);
      const uint32_t no = node.Input(2);
      WhereArgs* args = nullptr;
      SRT_RETURN_IF_ERROR(b->NewArgs(&args));
      *args = MakeWhereArgs(b->desc(x), b->desc(yes), b->desc(no), b->desc(y));
      if (!SelectWhere(*args, b->options.isa, &kernel)) return NoKernel(*b);
      const IoRef io[] = {b->ref(x), b->ref(yes), b->ref(no), b->ref(y)};
      return b->AddStep(kernel, args, {io, 4}, WhereItems(*args), 0, elements * 0.8);
    }
    case Op::kCompare: {
      const uint32_t other = node.Input(1) == kNoTensor ? x : node.Input(1);
      CompareArgs* args = nullptr;
      SRT_RETURN_IF_ERROR(b->NewArgs(&args));
      *args = MakeCompareArgs(static_cast<CompareFn>(node.IntAttr(AttrKey::k_fn, 0)), b->desc(x),
                              b->desc(other), b->desc(y));
      if (!SelectCompare(*args, b->options.isa, &kernel)) return NoKernel(*b);
      const IoRef io[] = {b->ref(x), b->ref(other), b->ref(y)};
      return b->AddStep(kernel, args, {io, 3}, CompareItems(*args), 0, elements * 0.8);
    }
    default: {
      CastArgs* args = nullptr;
      SRT_RETURN_IF_ERROR(b->NewArgs(&args));
      *args = MakeCastArgs(b->desc(x), b->desc(y));
      if (!SelectCast(*args, b->options.isa, &kernel)) return NoKernel(*b);
      const IoRef io[] = {b->ref(x), b->ref(y)};
      return b->AddStep(kernel, args, {io, 2}, CastItems(*args), 0, elements * 1.0);
    }
  }
}

}  // namespace sparsert
