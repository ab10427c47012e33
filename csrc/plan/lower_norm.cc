// Lowers LayerNormalization and RMSNormalization.
#include <cstdio>

#include "graph/resolve.h"
#include "kernels/layer_norm/layer_norm.h"
#include "plan/builder.h"
#include "plan/choose_layouts.h"
#include "plan/choose_spmm.h"

namespace sparsert {
namespace {

// Whether threads share elements instead of groups: those of a sequence whose products they share
// by rows.
bool ShareNormElements(const LayerNormArgs& args, const PlanOptions& options) {
  return options.threads > 1 && HalvesVectors(options.cpu) && args.centred && !args.along_rows &&
         args.rest.rows == 1 && SharedByPlanes(args.rest.row) &&
         NormRuns(args) >= 2 * options.threads;
}

Status AddNormStages(PlanBuilder* b, const Kernel& kernel, const LayerNormArgs& args,
                     IoRef (&io)[5], double work_ns) {
  const auto floats = static_cast<size_t>(NormSumsFloats(args));
  SRT_RETURN_IF_ERROR(b->Temporary(floats * sizeof(float), &io[4]));
  for (const NormStage stage : {NormStage::kSums, NormStage::kCentres, NormStage::kRows}) {
    LayerNormArgs* own = nullptr;
    SRT_RETURN_IF_ERROR(b->NewArgs(&own));
    *own = args;
    own->stage = stage;
    const bool once = stage == NormStage::kCentres;
    SRT_RETURN_IF_ERROR(
        b->AddStep(kernel, own, {io, 5}, once ? 1 : NormRuns(args), 0, once ? 0.0 : work_ns / 2));
  }
  return Status::Ok();
}

}  // namespace

Status LowerNorm(PlanBuilder* b) {
  const Node& node = *b->node;
  const uint32_t x = node.Input(0);
  const uint32_t y = node.outputs[0];
  int first = 0;
  SRT_RETURN_IF_ERROR(ResolveNormAxis(NodeView(b->graph, b->plan->facts, node), &first));
  const bool centred = node.op == Op::kLayerNormalization;
  const float epsilon = node.FloatAttr(AttrKey::k_epsilon, 1e-5f);
  IoRef scale;
  IoRef bias;
  SRT_RETURN_IF_ERROR(b->Plain(node.Input(1), &scale));
  if (node.Input(2) != kNoTensor) SRT_RETURN_IF_ERROR(b->Plain(node.Input(2), &bias));
  TensorDesc x_desc = b->desc(x);
  TensorDesc y_desc = b->desc(y);
  IoRef x_ref = b->ref(x);
  IoRef y_ref = b->ref(y);
  LayerNormArgs* args = nullptr;
  SRT_RETURN_IF_ERROR(b->NewArgs(&args));
  bool fits = MakeLayerNormArgs(centred, epsilon, x_desc, first, y_desc, args);
  if (!fits) {
    // The two differ in layout: the result is made in the input's, then moved.
    y_desc = x_desc;
    fits = MakeLayerNormArgs(centred, epsilon, x_desc, first, y_desc, args);
    if (!fits) {
      x_desc = y_desc = PlainDesc(DType::kF32, x_desc.shape);
      SRT_RETURN_IF_ERROR(b->Plain(x, &x_ref));
      fits = MakeLayerNormArgs(centred, epsilon, x_desc, first, y_desc, args);
    }
    SRT_RETURN_IF_ERROR(b->Temporary(StorageBytes(y_desc), &y_ref));
  }
  Kernel kernel;
  if (!fits || !SelectLayerNorm(*args, b->options.isa, &kernel)) {
    return b->Fail(StatusCode::kInternal, "no kernel for these operands");
  }
  snprintf(b->info().reason, sizeof(b->info().reason), "%s, bound by memory",
           args->along_rows ? "one group after the other" : "one group per lane");
  const double work_ns = static_cast<double>(x_desc.shape.elements()) * 0.5;
  IoRef io[] = {x_ref, scale, bias, y_ref, {}};
  if (ShareNormElements(*args, b->options)) {
    SRT_RETURN_IF_ERROR(AddNormStages(b, kernel, *args, io, work_ns));
  } else {
    SRT_RETURN_IF_ERROR(b->AddStep(kernel, args, {io, 4}, LayerNormItems(*args), 0, work_ns));
  }
  if (y_ref.kind == b->ref(y).kind && y_ref.index == b->ref(y).index) return Status::Ok();
  return b->AddCopy(y_desc, y_ref, b->desc(y), b->ref(y));
}

}  // namespace sparsert
