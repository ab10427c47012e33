// Lowers Reduce, Softmax and LogSoftmax.
#include <cstdio>
#include <limits>

#include "graph/resolve.h"
#include "kernels/binary/binary.h"
#include "kernels/reduce/reduce.h"
#include "kernels/softmax/softmax.h"
#include "kernels/unary/unary.h"
#include "plan/builder.h"

namespace sparsert {
namespace {

// A reduction over no axes: what is left is its function of one element.
Status LowerElementwiseReduce(PlanBuilder* b, ReduceFn fn) {
  const uint32_t x = b->node->Input(0);
  const uint32_t y = b->node->outputs[0];
  const double elements = static_cast<double>(b->facts(x).shape.elements());
  snprintf(b->info().reason, sizeof(b->info().reason), "no axes: elementwise");
  Kernel kernel;
  if (fn == ReduceFn::kSumSquare) {
    BinaryArgs* args = nullptr;
    SRT_RETURN_IF_ERROR(b->NewArgs(&args));
    *args = MakeBinaryArgs(BinaryFn::kMul, b->desc(x), b->desc(x), b->desc(y), Activation());
    if (!SelectBinary(*args, b->options.isa, &kernel)) {
      return b->Fail(StatusCode::kInternal, "no kernel for these operands");
    }
    const IoRef io[] = {b->ref(x), b->ref(x), b->ref(y)};
    return b->AddStep(kernel, args, {io, 3}, BinaryItems(*args), 0, elements * 0.25);
  }
  Activation unary;
  if (fn == ReduceFn::kL1 || fn == ReduceFn::kL2) unary.fn = UnaryFn::kAbs;
  if (fn == ReduceFn::kLogSum) unary.fn = UnaryFn::kLog;
  if (unary.fn == UnaryFn::kNone) {
    return b->AddCopy(b->desc(x), b->ref(x), b->desc(y), b->ref(y));
  }
  UnaryArgs* args = nullptr;
  SRT_RETURN_IF_ERROR(b->NewArgs(&args));
  *args = MakeUnaryArgs(b->desc(x), b->desc(y), unary);
  if (!SelectUnary(*args, b->options.isa, &kernel)) {
    return b->Fail(StatusCode::kInternal, "no kernel for these operands");
  }
  const IoRef io[] = {b->ref(x), b->ref(y)};
  return b->AddStep(kernel, args, {io, 2}, UnaryItems(*args), 0, elements * 0.8);
}

// What a reduction gives for no elements at all.
float OfNothing(ReduceFn fn) {
  switch (fn) {
    case ReduceFn::kMean:
      return std::numeric_limits<float>::quiet_NaN();
    case ReduceFn::kMax:
    case ReduceFn::kLogSum:
    case ReduceFn::kLogSumExp:
      return -std::numeric_limits<float>::infinity();
    case ReduceFn::kMin:
      return std::numeric_limits<float>::infinity();
    case ReduceFn::kProd:
      return 1.0f;
    default:
      return 0.0f;
  }
}

Status LowerEmptyReduce(PlanBuilder* b, ReduceFn fn) {
  const uint32_t y = b->node->outputs[0];
  snprintf(b->info().reason, sizeof(b->info().reason), "its input is empty: a constant");
  float* value = b->plan->memory.Allocate<float>(1);
  if (value == nullptr) return Status::OutOfMemory("constant", sizeof(float));
  *value = OfNothing(fn);
  IoRef from;
  from.kind = IoRef::kConstant;
  from.constant = value;
  TensorDesc one = b->desc(y);
  for (int64_t& stride : one.strides) stride = 0;
  return b->AddCopy(one, from, b->desc(y), b->ref(y));
}

}  // namespace

Status LowerReduce(PlanBuilder* b) {
  const Node& node = *b->node;
  const uint32_t x = node.Input(0);
  const uint32_t y = node.outputs[0];
  const IoRef io[] = {b->ref(x), b->ref(y)};
  const double elements = static_cast<double>(b->facts(x).shape.elements());
  Kernel kernel;
  if (node.op == Op::kReduce) {
    const int64_t fn = node.IntAttr(AttrKey::k_fn, 0);
    if (elements == 0.0) return LowerEmptyReduce(b, static_cast<ReduceFn>(fn));
    bool reduced[kMaxRank] = {};
    SRT_RETURN_IF_ERROR(ResolveReducedAxes(NodeView(b->graph, b->plan->facts, node), reduced));
    bool any = false;
    for (int d = 0; d < b->facts(x).shape.rank; ++d) any |= reduced[d];
    if (!any) return LowerElementwiseReduce(b, static_cast<ReduceFn>(fn));
    ReduceArgs* args = nullptr;
    SRT_RETURN_IF_ERROR(b->NewArgs(&args));
    *args = MakeReduceArgs(static_cast<ReduceFn>(fn), b->desc(x), reduced, b->desc(y));
    if (!SelectReduce(*args, b->options.isa, &kernel)) {
      return b->Fail(StatusCode::kInternal, "no kernel for these operands");
    }
    snprintf(b->info().reason, sizeof(b->info().reason), "reduction, bound by memory");
    return b->AddStep(kernel, args, {io, 2}, ReduceItems(*args), 0, elements * 0.2);
  }
  int axis = 0;
  SRT_RETURN_IF_ERROR(
      NormalizeAxis(node, node.IntAttr(AttrKey::k_axis, -1), b->facts(x).shape.rank, &axis));
  SoftmaxArgs* args = nullptr;
  SRT_RETURN_IF_ERROR(b->NewArgs(&args));
  *args = MakeSoftmaxArgs(node.op == Op::kLogSoftmax, b->desc(x), axis, b->desc(y));
  if (!SelectSoftmax(*args, b->options.isa, &kernel)) {
    return b->Fail(StatusCode::kInternal, "no kernel for these operands");
  }
  snprintf(b->info().reason, sizeof(b->info().reason), "one pass per slice along the axis");
  return b->AddStep(kernel, args, {io, 2}, SoftmaxItems(*args), 0, elements * 1.0);
}

}  // namespace sparsert
