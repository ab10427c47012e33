// MatMul: arguments and selection.
#include "kernels/matmul/matmul.h"

#include "kernels/select.h"

namespace sparsert {

#define SRT_KERNEL SRT_DECLARE_KERNEL
#include "kernels/matmul/kernels.inc"

static const Kernel kKernels[] = {
#define SRT_KERNEL SRT_KERNEL_ROW
#include "kernels/matmul/kernels.inc"
};

// Fewer rows do not pay for packing a panel.
constexpr int64_t kMinRowBlock = 48;

void ShareMatMul(int threads, MatMulArgs* args) {
  args->batches = 1;
  for (int d = 0; d < args->batch_rank; ++d) args->batches *= args->batch_dims[d];
  args->panels = (args->n + kMatMulPanel - 1) / kMatMulPanel;
  const int64_t parallel = args->batches * args->panels;
  int64_t blocks = 1;
  if (threads > 1 && parallel > 0 && parallel < 4 * threads) {
    blocks = (4 * threads + parallel - 1) / parallel;
  }
  args->row_block = (args->m + blocks - 1) / blocks;
  if (args->row_block < kMinRowBlock) args->row_block = kMinRowBlock;
  args->row_blocks = (args->m + args->row_block - 1) / args->row_block;
}

int64_t MatMulItems(const MatMulArgs& args) { return args.batches * args.panels * args.row_blocks; }

size_t MatMulScratch(const MatMulArgs& args) {
  const int64_t depth = args.k < kMatMulDepth ? args.k : kMatMulDepth;
  return static_cast<size_t>(depth * kMatMulPanel) * sizeof(float);
}

bool SelectMatMul(const MatMulArgs&, Isa isa, Kernel* kernel) {
  return SelectKernel(kKernels, isa, kernel);
}

}  // namespace sparsert
