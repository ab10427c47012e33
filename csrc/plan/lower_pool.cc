// Lowers the pools.
#include <cstdio>

#include "kernels/pool/pool.h"
#include "plan/builder.h"

namespace sparsert {
namespace {

Status LowerWithIndices(PlanBuilder* b, const PoolWindow& window) {
  const Node& node = *b->node;
  const uint32_t x = node.Input(0);
  const uint32_t y = node.outputs[0];
  const uint32_t indices = node.outputs[1];
  PoolIndicesArgs* args = nullptr;
  SRT_RETURN_IF_ERROR(b->NewArgs(&args));
  const TensorFacts& f = b->facts(indices);
  *args = MakePoolIndicesArgs(b->desc(x), PlainDesc(DType::kF32, f.shape), window,
                              node.IntAttr(AttrKey::k_storage_order, 0) != 0);
  Kernel kernel;
  if (!SelectPoolIndices(*args, b->options.isa, &kernel)) {
    return b->Fail(StatusCode::kInternal, "no kernel for these operands");
  }
  IoRef io[3] = {b->ref(x)};
  if (y != kNoTensor) SRT_RETURN_IF_ERROR(b->PlainOutput(y, &io[1]));
  SRT_RETURN_IF_ERROR(b->PlainOutput(indices, &io[2]));
  const double taps = static_cast<double>(window.kernel[0] * window.kernel[1]);
  SRT_RETURN_IF_ERROR(b->AddStep(kernel, args, {io, 3}, PoolIndicesItems(*args), 0,
                                 static_cast<double>(f.shape.elements()) * taps * 1.0));
  if (y != kNoTensor) SRT_RETURN_IF_ERROR(b->FinishPlain(y, io[1]));
  return b->FinishPlain(indices, io[2]);
}

}  // namespace

Status LowerPool(PlanBuilder* b) {
  const Node& node = *b->node;
  const uint32_t x = node.Input(0);
  const uint32_t y = node.outputs[0];
  if (b->ref(x).kind == IoRef::kNone) {
    b->info().compute_format = "fused";
    snprintf(b->info().reason, sizeof(b->info().reason), "computed with its input");
    return Status::Ok();
  }
  const bool max = node.op == Op::kMaxPool || node.op == Op::kGlobalMaxPool;
  const PoolFn fn = max ? PoolFn::kMax : PoolFn::kAverage;
  const double in_elements = static_cast<double>(b->facts(x).shape.elements());
  snprintf(b->info().reason, sizeof(b->info().reason), "pool, bound by memory");
  Kernel kernel;
  const IoRef io[] = {b->ref(x), b->ref(y)};

  if (node.op == Op::kGlobalAveragePool || node.op == Op::kGlobalMaxPool) {
    GlobalPoolArgs* args = nullptr;
    SRT_RETURN_IF_ERROR(b->NewArgs(&args));
    *args = MakeGlobalPoolArgs(fn, b->desc(x), b->desc(y));
    if (!SelectGlobalPool(*args, b->options.isa, &kernel)) {
      return b->Fail(StatusCode::kInternal, "no kernel for these operands");
    }
    return b->AddStep(kernel, args, {io, 2}, GlobalPoolItems(*args), 0, in_elements * 0.1);
  }

  Window w;
  SRT_RETURN_IF_ERROR(
      ResolveWindow(node, b->facts(x).shape, node.IntsAttr(AttrKey::k_kernel_shape), &w));
  PoolWindow window;
  for (int d = 0; d < 2; ++d) {
    window.kernel[d] = w.kernel[d];
    window.stride[d] = w.stride[d];
    window.dilation[d] = w.dilation[d];
    window.pad_begin[d] = w.pad_begin[d];
    window.pad_end[d] = w.pad_end[d];
    window.in[d] = w.in[d];
    window.out[d] = w.out[d];
  }
  if (node.outputs.size > 1) return LowerWithIndices(b, window);
  PoolArgs* args = nullptr;
  SRT_RETURN_IF_ERROR(b->NewArgs(&args));
  *args = MakePoolArgs(fn, b->desc(x), b->desc(y), window,
                       node.IntAttr(AttrKey::k_count_include_pad, 0) != 0);
  if (!SelectPool(*args, b->options.isa, &kernel)) {
    return b->Fail(StatusCode::kInternal, "no kernel for these operands");
  }
  const double work_ns = static_cast<double>(b->facts(y).shape.elements()) *
                         static_cast<double>(w.kernel[0] * w.kernel[1]) * 0.1;
  return b->AddStep(kernel, args, {io, 2}, PoolItems(*args), PoolScratch(*args), work_ns);
}

}  // namespace sparsert
