// Analytic cost of the spmv kernels.
#include "plan/choose_spmv.h"

#include <algorithm>

#include "plan/matrix_stats.h"

namespace sparsert {
namespace {

// Cycles as the cost model of spmm counts them, since the two are compared.
constexpr double kNsPerCycle = 1.0 / 3.0;

// Bytes per cycle of weights that come from beyond L2: the more there are, the farther they lie;
// and of weights that an earlier vector has left in L2.
constexpr double kFarBytes = 10.0;
constexpr double kFewFarBytes = 20.0;
constexpr double kNearBytes = 32.0;
constexpr double kFewLimit = 1 << 20;

// Cycles to gather one vector of `lanes` floats and multiply it.
double GatherCycles(int lanes) { return lanes * (lanes >= 8 ? 1.0 : 1.5) + 1.0; }

// Cycles to spread a column of a slice by its mask and multiply it.
double SpreadCycles(Isa isa) {
  return isa == Isa::kScalar ? 14.0 : isa == Isa::kAvx512 ? 6.0 : 4.0;
}

// bits takes part where it is predicted to be at most this much slower than sell: with few weights
// left it never is the faster one, whatever a single measurement says.
constexpr double kCloseBits = 1.1;

}  // namespace

int PredictSpmv(const SpmvProblem& p, Isa isa, SpmvChoice* choices) {
  int count = 0;
  double sell_ns = 0.0;
  const double rows = static_cast<double>(p.rows);
  const double weights = rows * static_cast<double>(p.cols);
  const double nnz = static_cast<double>(p.nnz);
  for (const SpmvFormat format : {SpmvFormat::kDense, SpmvFormat::kSell, SpmvFormat::kBits}) {
    SpmvChoice choice;
    choice.format = format;
    const bool sell = format == SpmvFormat::kSell;
    const bool bits = format == SpmvFormat::kBits;
    // With hardly a zero the others are dense with needless indices.
    if ((sell || bits) && nnz >= kFullDensity * weights) continue;
    const bool found =
        p.bytes ? SelectQspmv(format, isa, &choice.kernel, &choice.lanes, &choice.byte_offset)
                : SelectSpmv(format, isa, &choice.kernel, &choice.lanes);
    if (!found) continue;
    const int lanes = choice.lanes;
    const double slices = (rows + lanes - 1) / lanes;
    const double vectors = sell ? nnz / lanes : slices * static_cast<double>(p.cols);
    const double bytes =
        bits ? nnz * 4.0 + vectors * SpmvMaskBytes(lanes) : vectors * lanes * (sell ? 6.0 : 4.0);
    const double step = sell   ? GatherCycles(lanes)
                        : bits ? SpreadCycles(choice.kernel.isa)
                               : 1.0 / std::min(1.0, p.cpu.fma_per_cycle);
    const double compute = vectors * step + slices * 40.0;
    const bool few = bytes <= kFewLimit;
    const double first = std::max(compute, bytes / (few ? kFewFarBytes : kFarBytes));
    const double next = std::max(compute, bytes / (few ? kNearBytes : kFarBytes));
    choice.predicted_ns = (first + next * static_cast<double>(p.batch - 1)) * kNsPerCycle;
    if (sell) sell_ns = choice.predicted_ns;
    if (bits && choice.predicted_ns > kCloseBits * sell_ns) continue;
    choices[count++] = choice;
  }
  return count;
}

const char* SpmvFormatName(SpmvFormat format) {
  static const char* const kNames[] = {"dense", "sell", "bits"};
  return kNames[static_cast<int>(format)];
}

double TransposeNs(double elements) { return 50.0 + elements; }

}  // namespace sparsert
