// Attention: selection.
#include "kernels/attention/attention.h"

#include "kernels/select.h"

namespace sparsert {

#define SRT_KERNEL SRT_DECLARE_KERNEL
#include "kernels/attention/kernels.inc"

static const Kernel kKernels[] = {
#define SRT_KERNEL SRT_KERNEL_ROW
#include "kernels/attention/kernels.inc"
};

int64_t AttentionItems(const AttentionArgs& args) {
  const int64_t blocks = (args.queries + kAttentionQueries - 1) / kAttentionQueries;
  return args.batch * args.heads * blocks;
}

size_t AttentionScratch(const AttentionArgs& args) {
  const int64_t keys = args.keys < kAttentionKeys ? args.keys : kAttentionKeys;
  // Queries, scores, results, and per query the maximum, the sum and a correction.
  const int64_t rows = args.size + keys + args.value_size + 3;
  return static_cast<size_t>(rows * kAttentionQueries) * sizeof(float);
}

bool SelectAttention(const AttentionArgs&, Isa isa, Kernel* kernel) {
  return SelectKernel(kKernels, isa, kernel);
}

}  // namespace sparsert
