// Lowers Recurrent.
#include <algorithm>
#include <cmath>
#include <cstdio>

#include "kernels/recurrent/recurrent.h"
#include "plan/builder.h"
#include "plan/choose_spmv.h"

namespace sparsert {
namespace {

// Of a matrix, what one sequence after the other is multiplied with: it stays in L2.
constexpr size_t kChunkBytes = 128 << 10;

// The matrix in the format that is fastest when all steps of all sequences read it.
Status PackState(PlanBuilder* b, uint32_t matrix, uint32_t bias, int64_t products,
                 StateProduct* product, double* predicted_ns, const char** format) {
  const EncodedTensor& data = b->graph.tensors[matrix].data;
  SpmvProblem problem;
  problem.cpu = b->options.cpu;
  problem.rows = data.rows;
  problem.cols = data.cols;
  problem.batch = products;
  SRT_RETURN_IF_ERROR(b->weights->NonZeros(matrix, &problem.nnz));
  SpmvChoice choices[kMaxSpmvChoices];
  const int count = PredictSpmv(problem, b->options.isa, choices);
  if (count == 0) return b->Fail(StatusCode::kUnsupported, "no matrix kernel in this build");
  const SpmvChoice* best = &choices[0];
  for (int i = 1; i < count; ++i) {
    if (choices[i].predicted_ns < best->predicted_ns) best = &choices[i];
  }
  PackKey key;
  key.tensor = matrix;
  key.vector = true;
  key.bias = bias;
  key.format = static_cast<int>(best->format);
  key.lanes = best->lanes;
  const PackedSpmv* packed = nullptr;
  SRT_RETURN_IF_ERROR(b->weights->Spmv(key, &packed));
  b->weights->Keep(key);
  b->info().packed_bytes += packed->bytes();
  product->run = best->kernel.run;
  product->args.weights = packed->slices;
  const int64_t chunks = static_cast<int64_t>(packed->bytes() / kChunkBytes);
  product->args.chunks =
      static_cast<int32_t>(std::max<int64_t>(1, std::min<int64_t>(packed->slices.slices, chunks)));
  *predicted_ns += best->predicted_ns;
  *format = SpmvFormatName(best->format);
  return Status::Ok();
}

}  // namespace

Status LowerRecurrent(PlanBuilder* b) {
  const Node& node = *b->node;
  const Shape& y = b->facts(node.outputs[0]).shape;
  RecurrentArgs* args = nullptr;
  SRT_RETURN_IF_ERROR(b->NewArgs(&args));
  args->cell = static_cast<Cell>(node.IntAttr(AttrKey::k_cell, 0));
  args->reverse = node.IntAttr(AttrKey::k_reverse, 0) != 0;
  args->clip = node.FloatAttr(AttrKey::k_clip, INFINITY);
  args->steps = y.dims[0];
  args->batch = y.dims[1];
  args->hidden = y.dims[2];
  const Span<int64_t> functions = node.IntsAttr(AttrKey::k_activations);
  Activation* const targets[] = {&args->f, &args->g, &args->h};
  for (size_t i = 0; i < functions.size && i < 3; ++i) {
    targets[i]->fn = static_cast<UnaryFn>(functions[i]);
  }
  const int64_t products = args->steps * args->batch;
  double work_ns = 0.0;
  const char* candidate_format = "";
  SRT_RETURN_IF_ERROR(PackState(b, node.Input(1), node.Input(2), products, &args->state, &work_ns,
                                &b->info().compute_format));
  if (node.Input(3) != kNoTensor) {
    SRT_RETURN_IF_ERROR(PackState(b, node.Input(3), kNoTensor, products, &args->candidate, &work_ns,
                                  &candidate_format));
  }
  if (node.Input(7) != kNoTensor) {
    const void* peephole = nullptr;
    SRT_RETURN_IF_ERROR(b->ConstantData(node.Input(7), &peephole));
    args->peephole = static_cast<const float*>(peephole);
  }
  b->info().predicted_ns = work_ns;
  snprintf(b->info().reason, sizeof(b->info().reason),
           "%s weights of the state by the cost model, one sequence after the other",
           b->info().compute_format);
  Kernel kernel;
  if (!SelectRecurrent(*args, b->options.isa, &kernel)) {
    return b->Fail(StatusCode::kInternal, "no kernel for these operands");
  }
  IoRef io[7];
  SRT_RETURN_IF_ERROR(b->Plain(node.Input(0), &io[0]));
  for (size_t i = 0; i < 3; ++i) {
    if (node.Input(4 + i) == kNoTensor) continue;
    SRT_RETURN_IF_ERROR(b->Plain(node.Input(4 + i), &io[1 + i]));
  }
  for (size_t i = 0; i < node.outputs.size; ++i) {
    if (node.outputs[i] == kNoTensor) continue;
    SRT_RETURN_IF_ERROR(b->PlainOutput(node.outputs[i], &io[4 + i]));
  }
  SRT_RETURN_IF_ERROR(
      b->AddStep(kernel, args, {io, 7}, RecurrentItems(*args), RecurrentScratch(*args), work_ns));
  for (size_t i = 0; i < node.outputs.size; ++i) {
    if (node.outputs[i] == kNoTensor) continue;
    SRT_RETURN_IF_ERROR(b->FinishPlain(node.outputs[i], io[4 + i]));
  }
  return Status::Ok();
}

}  // namespace sparsert
