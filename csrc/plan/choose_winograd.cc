// Analytic cost of the winograd kernel, and its blocking by the sizes of the caches.
#include "plan/choose_winograd.h"

#include <algorithm>

namespace sparsert {
namespace {

// Cycles as the cost model of spmm counts them, since the two are compared.
constexpr double kNsPerCycle = 1.0 / 3.0;

// Cycles to transform one run of one channel, either way, where a cycle starts one multiply-add.
constexpr double kTransformCycles = 120.0;

// Cycles to read a weight from L2 or not far beyond, and from beyond.
constexpr double kNear = 0.375;
constexpr double kFar = 0.9;

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Slabs of equal depth, about half of L1 at the widest tile.
int64_t SlabDepth(const WinogradProblem& p, const WinogradKernel& kernel) {
  const int64_t row_bytes = static_cast<int64_t>(kernel.max_vecs) * kernel.lanes * 4;
  const int64_t most = std::max<int64_t>(16, p.cpu.l1d_bytes / 2 / row_bytes);
  return CeilDiv(p.channels, CeilDiv(p.channels, most));
}

}  // namespace

bool ChooseWinograd(const WinogradProblem& p, Isa isa, WinogradChoice* choice) {
  if (!SelectWinograd(isa, &choice->kernel)) return false;
  const WinogradKernel& kernel = choice->kernel;
  const int64_t patches_w = CeilDiv(p.out_w, 2);
  const int64_t patch_rows = p.batch * CeilDiv(p.out_h, 2);
  const int64_t vecs = CeilDiv(patch_rows * patches_w, kernel.lanes);
  constexpr int64_t kMost = int64_t{1} << 24;  // of a size that is kept in 32 bits
  if (vecs > kMost || p.rows > kMost || p.channels > kMost) return false;

  WinogradWeights& shape = choice->shape;
  shape.rows = static_cast<int32_t>(p.rows);
  shape.depth = static_cast<int32_t>(p.channels);
  shape.panel_rows = kernel.panel_rows;
  shape.block_depth = static_cast<int32_t>(SlabDepth(p, kernel));
  // Weights that L2 does not hold stream by for every block, and V for every group of rows: both
  // are larger then.
  const bool streams = shape.floats() * static_cast<int64_t>(sizeof(float)) > p.cpu.l2_bytes;
  shape.group_panels = static_cast<int32_t>(
      std::min<int64_t>(shape.panels(), (streams ? 128 : 64) / kernel.panel_rows));
  int64_t blocks = CeilDiv(vecs, kernel.max_vecs + (streams ? 1 : 0));
  int64_t splits = 1;
  if (blocks < p.threads) {
    // Threads share the rows, so that each reads its part of the weights only, or the patches.
    splits = std::min<int64_t>(shape.groups(), CeilDiv(p.threads, blocks));
    if (splits == 1) blocks = std::min<int64_t>(vecs, p.threads);
  } else if (blocks % p.threads != 0) {
    blocks = std::min(vecs, blocks + p.threads - blocks % p.threads);
  }
  choice->vecs = static_cast<int32_t>(vecs);
  choice->blocks = static_cast<int32_t>(blocks);
  choice->block_vecs = static_cast<int32_t>(CeilDiv(vecs, blocks));
  choice->splits = static_cast<int32_t>(splits);

  const double fma = p.cpu.fma_per_cycle;
  const double weights = static_cast<double>(shape.floats());
  const double nv = static_cast<double>(vecs) / static_cast<double>(blocks);
  // A tile of one vector has too few sums to hide the latency of a multiply-add.
  double cycles = weights * static_cast<double>(vecs) / fma * (nv > 1.5 ? 1.1 : 1.3);
  cycles = std::max(cycles, weights * static_cast<double>(blocks) * (streams ? kFar : kNear));
  const double runs =
      static_cast<double>(patch_rows) * (1.0 + static_cast<double>(patches_w) / kernel.lanes);
  cycles += runs * static_cast<double>(p.rows + p.channels) * kTransformCycles / fma;
  choice->predicted_ns = cycles * kNsPerCycle;
  return true;
}

}  // namespace sparsert
