// Analytic cost of the spmv kernels.
#include "plan/choose_spmv.h"

#include <algorithm>
#include <cstring>

#include "plan/choose_spmm.h"

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

// Slices of an item at least where groups of vectors go through several of them at a time.
constexpr int64_t kGroupSlices = 4;

// Cycles to gather one vector of `lanes` floats and multiply it.
double GatherCycles(int lanes) { return lanes * (lanes >= 8 ? 1.0 : 1.5) + 1.0; }

// Cycles to spread a column of a slice by its mask and multiply it.
double SpreadCycles(Isa isa) {
  return isa == Isa::kScalar ? 14.0 : isa == Isa::kAvx512 ? 6.0 : 4.0;
}

// Cycles to bring the x of one vector's blocks side by side and multiply it.
double BlockCycles(int block_rows, int vector_lanes) {
  return block_rows >= vector_lanes ? 1.25 : 0.75 * vector_lanes / block_rows + 0.5;
}

// bits takes part where it is predicted to be at most this much slower than sell: with few weights
// left it never is the faster one, whatever a single measurement says.
constexpr double kCloseBits = 1.1;

// bsr takes part where it stores at most this many weights for each non-zero: they lie in blocks.
constexpr double kBlockWaste = 1.5;

// Cycles of one vector of weights and a group of `vectors` that meet it, for each of the formats of
// SpmvGroup().
double GroupCycles(const SpmvProblem& p, SpmvFormat format, Isa isa, double vectors) {
  switch (format) {
    case SpmvFormat::kBits:
      return SpreadCycles(isa) + vectors / std::min(1.0, p.cpu.fma_per_cycle);
    case SpmvFormat::kPerm:
      return 2.0 + 2.5 * vectors;
    default:
      return vectors / std::min(1.0, p.cpu.fma_per_cycle);
  }
}

// Of perm, the share of slots that hold a weight: the fewer there are, the more often a row that is
// far behind holds the others up.
double PermFill(double density, bool bytes, bool short_stretches) {
  return std::max(0.25, 1.0 - (bytes ? 0.012 : short_stretches ? 0.029 : 0.018) / density);
}

bool PermsBytes(const SpmvProblem& problem) {
  return problem.bytes && !PermStoresGroups(problem.weights.nnz, problem.nonzero_bytes);
}

double StoredWeights(SpmvFormat format, const SpmvProblem& problem) {
  const MatrixStats& weights = problem.weights;
  switch (format) {
    case SpmvFormat::kDense:
      return static_cast<double>(weights.rows) * static_cast<double>(weights.depth);
    case SpmvFormat::kBsr4:
      return 4.0 * static_cast<double>(weights.columns4);
    case SpmvFormat::kBsr8:
      return 8.0 * static_cast<double>(weights.columns8);
    case SpmvFormat::kBsr16:
      return 16.0 * static_cast<double>(weights.columns16);
    case SpmvFormat::kPerm:
      return static_cast<double>(PermsBytes(problem) ? problem.nonzero_bytes / 4 : weights.nnz);
    default:
      return static_cast<double>(weights.nnz);
  }
}

// Vectors of the fewest groups of at most `most`.
int32_t EvenGroup(int64_t batch, int64_t most) {
  const int64_t groups = std::max<int64_t>(1, (batch + most - 1) / most);
  return static_cast<int32_t>(std::max<int64_t>(1, (batch + groups - 1) / groups));
}

}  // namespace

int PredictSpmv(const SpmvProblem& p, Isa isa, SpmvChoice* choices) {
  int count = 0;
  double sell_ns = 0.0;
  int vector_lanes = 1;
  SpmvChoice best_bsr;
  const double rows = static_cast<double>(p.weights.rows);
  const double weights = StoredWeights(SpmvFormat::kDense, p);
  for (int f = 0; f < static_cast<int>(SpmvFormat::kCount); ++f) {
    SpmvChoice choice;
    choice.format = static_cast<SpmvFormat>(f);
    const bool bits = choice.format == SpmvFormat::kBits;
    const int block_rows = SpmvBlockRows(choice.format);
    const bool bsr = block_rows > 1;
    // With hardly a zero the others are dense with needless indices.
    const bool full = static_cast<double>(p.weights.nnz) >= kFullDensity * weights;
    const bool perm = choice.format == SpmvFormat::kPerm;
    if (f != p.forced && choice.format != SpmvFormat::kDense && full) continue;
    const bool found = p.bytes ? SelectQspmv(choice.format, isa, &choice.kernel, &choice.lanes,
                                             &choice.byte_offset)
                               : SelectSpmv(choice.format, isa, &choice.kernel, &choice.lanes);
    if (!found) continue;
    choice.stored = StoredWeights(choice.format, p);
    if (kMaxSpmvGroup > 1 && p.groups)
      choice.group = EvenGroup(p.batch, SpmvGroup(choice.format, choice.kernel.isa));
    const double slices = (rows + choice.lanes - 1) / choice.lanes;
    if (choice.format == SpmvFormat::kDense) vector_lanes = choice.lanes;
    double vectors = slices * static_cast<double>(p.weights.depth);
    double bytes = vectors * choice.lanes * 4.0;
    double step = 1.0 / std::min(1.0, p.cpu.fma_per_cycle);
    if (bits) {
      bytes = choice.stored * 4.0 + vectors * SpmvMaskBytes(choice.lanes);
      step = SpreadCycles(choice.kernel.isa);
    } else if (block_rows != 0) {
      vectors = choice.stored / vector_lanes;
      bytes = choice.stored * (4.0 + 2.0 / block_rows);
      step = bsr ? BlockCycles(block_rows, vector_lanes) : GatherCycles(vector_lanes);
    } else if (perm) {
      const bool single = PermsBytes(p);
      const double fill =
          PermFill(std::max(1.0, choice.stored) / weights, single, choice.group > 1);
      vectors = choice.stored / vector_lanes / fill;
      bytes = vectors * ((single ? 8.0 : 5.0) * vector_lanes + 4.0);
      step = single ? 2.5 : p.bytes ? 4.5 : 9.0;
    }
    if (kMaxSpmvGroup > 1 && choice.group > 1)
      step = GroupCycles(p, choice.format, choice.kernel.isa, choice.group);
    const int64_t group = kMaxSpmvGroup > 1 ? choice.group : 1;
    const double compute = vectors * step + slices * 40.0 * static_cast<double>(group);
    const bool few = bytes <= kFewLimit;
    const double first = std::max(compute, bytes / (few ? kFewFarBytes : kFarBytes));
    const double next = std::max(compute, bytes / (few ? kNearBytes : kFarBytes));
    const auto passes = static_cast<double>((p.batch + group - 1) / group);
    choice.predicted_ns = (first + next * (passes - 1.0)) * kNsPerCycle;
    if (f == p.forced) {
      choices[0] = choice;
      return 1;
    }
    if (choice.format == SpmvFormat::kSell) sell_ns = choice.predicted_ns;
    if (bits && choice.predicted_ns > kCloseBits * sell_ns) continue;
    if (bsr && choice.stored > kBlockWaste * static_cast<double>(p.weights.nnz)) continue;
    if (!bsr) {
      choices[count++] = choice;
    } else if (best_bsr.lanes == 0 || choice.predicted_ns < best_bsr.predicted_ns) {
      best_bsr = choice;
    }
  }
  if (best_bsr.lanes != 0) choices[count++] = best_bsr;
  return count;
}

const char* SpmvFormatName(SpmvFormat format) {
  static const char* const kNames[] = {"dense", "sell", "bits", "bsr4", "bsr8", "bsr16", "perm"};
  return kNames[static_cast<int>(format)];
}

int ForcedSpmv(int format) {
  if (format >= kVectorFormat) return format - kVectorFormat;
  if (ForcedSpmm(format) == kAnyFormat) return kAnyFormat;
  const char* name = SpmmFormatName(static_cast<SpmmFormat>(format));
  for (int f = 0; f < static_cast<int>(SpmvFormat::kCount); ++f) {
    if (strcmp(name, SpmvFormatName(static_cast<SpmvFormat>(f))) == 0) return f;
  }
  return kAnyFormat;
}

bool MayUseSpmv(int format, int64_t vectors) {
  return ForcedSpmm(format) == kAnyFormat || vectors <= 1;
}

bool MayUseSpmm(int format, int64_t vectors) {
  return ForcedSpmm(format) == kAnyFormat ? format < kVectorFormat : vectors > 1;
}

int32_t SpmvChunks(const SpmvChoice& choice, int32_t slices, double item_weights) {
  auto items = static_cast<int64_t>(choice.stored / item_weights);
  if (kMaxSpmvGroup > 1 && choice.group > 1)
    items = std::min<int64_t>(items, slices / kGroupSlices);
  return static_cast<int32_t>(std::max<int64_t>(1, std::min<int64_t>(slices, items)));
}

double TransposeNs(double elements) { return 50.0 + elements; }

}  // namespace sparsert
