// Lowers the ops of infer_index.cc but for Tile: their kernels take row-major tensors.
#include <algorithm>
#include <cstdio>

#include "graph/resolve.h"
#include "kernels/arg_reduce/arg_reduce.h"
#include "kernels/cumulate/cumulate.h"
#include "kernels/one_hot/one_hot.h"
#include "kernels/scatter/scatter.h"
#include "kernels/topk/topk.h"
#include "kernels/trilu/trilu.h"
#include "plan/builder.h"

namespace sparsert {
namespace {

// A tensor seen as [outer, size, inner] around an axis.
struct AxisView {
  int64_t outer = 1;
  int64_t size = 1;
  int64_t inner = 1;
};

Status ViewAround(const PlanBuilder& b, int64_t attr, const Shape& shape, AxisView* view) {
  int axis = 0;
  SRT_RETURN_IF_ERROR(NormalizeAxis(*b.node, attr, shape.rank, &axis));
  for (int d = 0; d < axis; ++d) view->outer *= shape.dims[d];
  view->size = shape.dims[axis];
  for (int d = axis + 1; d < shape.rank; ++d) view->inner *= shape.dims[d];
  return Status::Ok();
}

Status NoKernel(const PlanBuilder& b) {
  return b.Fail(StatusCode::kInternal, "no kernel for these operands");
}

double Elements(const PlanBuilder& b, uint32_t tensor) {
  return static_cast<double>(b.facts(tensor).shape.elements());
}

// The one value of an input that is known, which shape inference has checked.
int64_t KnownInt(const PlanBuilder& b, size_t input) {
  return b.plan->facts.Known(b.node->inputs[input])[0];
}

Status LowerArgReduce(PlanBuilder* b) {
  const Node& node = *b->node;
  const uint32_t x = node.inputs[0];
  const uint32_t y = node.outputs[0];
  AxisView view;
  SRT_RETURN_IF_ERROR(ViewAround(*b, node.IntAttr(AttrKey::k_axis, 0), b->facts(x).shape, &view));
  ArgReduceArgs* args = nullptr;
  SRT_RETURN_IF_ERROR(b->NewArgs(&args));
  *args = {b->facts(x).dtype,
           node.op == Op::kArgMax,
           node.IntAttr(AttrKey::k_select_last_index, 0) != 0,
           view.outer,
           view.size,
           view.inner};
  Kernel kernel;
  if (!SelectArgReduce(*args, b->options.isa, &kernel)) return NoKernel(*b);
  IoRef io[2];
  SRT_RETURN_IF_ERROR(b->Plain(x, &io[0]));
  SRT_RETURN_IF_ERROR(b->PlainOutput(y, &io[1]));
  SRT_RETURN_IF_ERROR(
      b->AddStep(kernel, args, {io, 2}, ArgReduceItems(*args), 0, Elements(*b, x) * 1.0));
  return b->FinishPlain(y, io[1]);
}

Status LowerTopK(PlanBuilder* b) {
  const Node& node = *b->node;
  const uint32_t x = node.inputs[0];
  AxisView view;
  SRT_RETURN_IF_ERROR(ViewAround(*b, node.IntAttr(AttrKey::k_axis, -1), b->facts(x).shape, &view));
  TopkArgs* args = nullptr;
  SRT_RETURN_IF_ERROR(b->NewArgs(&args));
  *args = {b->facts(x).dtype, node.IntAttr(AttrKey::k_largest, 1) != 0,
           view.outer,        view.size,
           KnownInt(*b, 1),   view.inner};
  Kernel kernel;
  if (!SelectTopk(*args, b->options.isa, &kernel)) return NoKernel(*b);
  IoRef io[3];
  SRT_RETURN_IF_ERROR(b->Plain(x, &io[0]));
  for (size_t i = 0; i < node.outputs.size; ++i) {
    if (node.outputs[i] == kNoTensor) continue;
    SRT_RETURN_IF_ERROR(b->PlainOutput(node.outputs[i], &io[1 + i]));
  }
  SRT_RETURN_IF_ERROR(b->AddStep(kernel, args, {io, 3}, TopkItems(*args), TopkScratchBytes(*args),
                                 Elements(*b, x) * 5.0));
  for (size_t i = 0; i < node.outputs.size; ++i) {
    if (node.outputs[i] == kNoTensor) continue;
    SRT_RETURN_IF_ERROR(b->FinishPlain(node.outputs[i], io[1 + i]));
  }
  return Status::Ok();
}

PickArgs PlacesOf(const PlanBuilder& b, Op op) {
  const Node& node = *b.node;
  const TensorDesc& x = b.desc(node.inputs[0]);
  const TensorDesc& indices = b.desc(node.inputs[1]);
  if (op == Op::kGatherElements || op == Op::kScatterElements) {
    const int64_t axis = node.IntAttr(AttrKey::k_axis, 0);
    return MakeGatherElementsArgs(x, static_cast<int>(axis < 0 ? axis + x.shape.rank : axis),
                                  indices);
  }
  return MakeGatherNdArgs(x, static_cast<int>(node.IntAttr(AttrKey::k_batch_dims, 0)), indices);
}

Status LowerPick(PlanBuilder* b) {
  const Node& node = *b->node;
  const uint32_t y = node.outputs[0];
  PickArgs* args = nullptr;
  SRT_RETURN_IF_ERROR(b->NewArgs(&args));
  *args = PlacesOf(*b, node.op);
  Kernel kernel;
  if (!SelectPick(*args, b->options.isa, &kernel)) return NoKernel(*b);
  IoRef io[4];
  io[3] = FaultRef();
  SRT_RETURN_IF_ERROR(b->Plain(node.inputs[0], &io[0]));
  SRT_RETURN_IF_ERROR(b->Plain(node.inputs[1], &io[1]));
  SRT_RETURN_IF_ERROR(b->PlainOutput(y, &io[2]));
  SRT_RETURN_IF_ERROR(b->AddStep(kernel, args, {io, 4}, PickItems(*args), 0,
                                 static_cast<double>(args->tuples) * 5.0 + Elements(*b, y) * 0.2));
  return b->FinishPlain(y, io[2]);
}

Status LowerScatter(PlanBuilder* b) {
  const Node& node = *b->node;
  const uint32_t x = node.inputs[0];
  const uint32_t y = node.outputs[0];
  ScatterArgs* args = nullptr;
  SRT_RETURN_IF_ERROR(b->NewArgs(&args));
  args->places = PlacesOf(*b, node.op);
  args->dtype = b->facts(x).dtype;
  args->reduction = static_cast<ScatterReduction>(node.IntAttr(AttrKey::k_reduction, 0));
  Kernel kernel;
  if (!SelectScatter(*args, b->options.isa, &kernel)) return NoKernel(*b);
  IoRef io[4];
  io[3] = FaultRef();
  SRT_RETURN_IF_ERROR(b->Plain(node.inputs[1], &io[0]));
  SRT_RETURN_IF_ERROR(b->Plain(node.inputs[2], &io[1]));
  SRT_RETURN_IF_ERROR(b->PlainOutput(y, &io[2]));
  SRT_RETURN_IF_ERROR(
      b->AddCopy(b->desc(x), b->ref(x), PlainDesc(b->facts(y).dtype, b->facts(y).shape), io[2]));
  SRT_RETURN_IF_ERROR(b->AddStep(kernel, args, {io, 4}, ScatterItems(*args), 0,
                                 static_cast<double>(args->places.tuples) * 5.0));
  return b->FinishPlain(y, io[2]);
}

Status LowerOneHot(PlanBuilder* b) {
  const Node& node = *b->node;
  const uint32_t y = node.outputs[0];
  AxisView view;
  SRT_RETURN_IF_ERROR(ViewAround(*b, node.IntAttr(AttrKey::k_axis, -1), b->facts(y).shape, &view));
  OneHotArgs* args = nullptr;
  SRT_RETURN_IF_ERROR(b->NewArgs(&args));
  *args = {b->facts(node.inputs[0]).dtype, static_cast<int>(DTypeSize(b->facts(y).dtype)),
           view.outer, view.size, view.inner};
  Kernel kernel;
  if (!SelectOneHot(*args, b->options.isa, &kernel)) return NoKernel(*b);
  IoRef io[3];
  SRT_RETURN_IF_ERROR(b->Plain(node.inputs[0], &io[0]));
  SRT_RETURN_IF_ERROR(b->Plain(node.inputs[2], &io[1]));
  SRT_RETURN_IF_ERROR(b->PlainOutput(y, &io[2]));
  SRT_RETURN_IF_ERROR(
      b->AddStep(kernel, args, {io, 3}, OneHotItems(*args), 0, Elements(*b, y) * 0.3));
  return b->FinishPlain(y, io[2]);
}

Status LowerCumulate(PlanBuilder* b) {
  const Node& node = *b->node;
  const uint32_t x = node.inputs[0];
  const uint32_t y = node.outputs[0];
  AxisView view;
  SRT_RETURN_IF_ERROR(ViewAround(*b, KnownInt(*b, 1), b->facts(x).shape, &view));
  CumulateArgs* args = nullptr;
  SRT_RETURN_IF_ERROR(b->NewArgs(&args));
  *args = {b->facts(x).dtype,
           node.op == Op::kCumProd,
           node.IntAttr(AttrKey::k_exclusive, 0) != 0,
           node.IntAttr(AttrKey::k_reverse, 0) != 0,
           view.outer,
           view.size,
           view.inner};
  Kernel kernel;
  if (!SelectCumulate(*args, b->options.isa, &kernel)) return NoKernel(*b);
  IoRef io[2];
  SRT_RETURN_IF_ERROR(b->Plain(x, &io[0]));
  SRT_RETURN_IF_ERROR(b->PlainOutput(y, &io[1]));
  SRT_RETURN_IF_ERROR(
      b->AddStep(kernel, args, {io, 2}, CumulateItems(*args), 0, Elements(*b, x) * 1.0));
  return b->FinishPlain(y, io[1]);
}

Status LowerTrilu(PlanBuilder* b) {
  const Node& node = *b->node;
  const uint32_t x = node.inputs[0];
  const uint32_t y = node.outputs[0];
  const Shape& shape = b->facts(x).shape;
  TriluArgs* args = nullptr;
  SRT_RETURN_IF_ERROR(b->NewArgs(&args));
  args->element_bytes = static_cast<int>(DTypeSize(b->facts(x).dtype));
  args->upper = node.IntAttr(AttrKey::k_upper, 1) != 0;
  // Beyond the matrix every k is alike.
  constexpr int64_t kFar = int64_t{2} * kMaxElements;
  args->k = node.Input(1) == kNoTensor ? 0 : std::clamp(KnownInt(*b, 1), -kFar, kFar);
  args->rows = shape.dims[shape.rank - 2];
  args->cols = shape.dims[shape.rank - 1];
  args->matrices = 1;
  for (int d = 0; d + 2 < shape.rank; ++d) args->matrices *= shape.dims[d];
  Kernel kernel;
  if (!SelectTrilu(*args, b->options.isa, &kernel)) return NoKernel(*b);
  IoRef io[2];
  SRT_RETURN_IF_ERROR(b->Plain(x, &io[0]));
  SRT_RETURN_IF_ERROR(b->PlainOutput(y, &io[1]));
  SRT_RETURN_IF_ERROR(
      b->AddStep(kernel, args, {io, 2}, TriluItems(*args), 0, Elements(*b, x) * 0.2));
  return b->FinishPlain(y, io[1]);
}

}  // namespace

Status LowerIndex(PlanBuilder* b) {
  snprintf(b->info().reason, sizeof(b->info().reason), "one kernel for every type");
  for (uint32_t y : b->node->outputs) {
    if (y != kNoTensor && b->facts(y).shape.elements() == 0) return Status::Ok();
  }
  switch (b->node->op) {
    case Op::kArgMax:
    case Op::kArgMin:
      return LowerArgReduce(b);
    case Op::kTopK:
      return LowerTopK(b);
    case Op::kGatherElements:
    case Op::kGatherND:
      return LowerPick(b);
    case Op::kScatterElements:
    case Op::kScatterND:
      return LowerScatter(b);
    case Op::kOneHot:
      return LowerOneHot(b);
    case Op::kTrilu:
      return LowerTrilu(b);
    default:
      return LowerCumulate(b);
  }
}

}  // namespace sparsert
