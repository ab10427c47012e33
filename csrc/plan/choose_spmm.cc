// Analytic cost of the spmm kernels.
#include "plan/choose_spmm.h"

#include "plan/choose_winograd.h"

#include <algorithm>
#include <cstring>

#include "plan/choose_spmv.h"
#include "plan/stacks.h"
namespace sparsert {
namespace {

// Only ratios between candidates matter to the choice; 3 GHz turns cycles into nanoseconds.
constexpr double kNsPerCycle = 1.0 / 3.0;

constexpr int64_t kLargePlane = 1024;  // columns

// Sums that shallow blocks of bytes can keep between them, where L2 gives X at half the speed of
// products: those of 7 x 7 planes.
constexpr int64_t kFewSums = 32 * 1024;

// Bytes of a block's slab of X. A dense panel reads every row of it, so it must leave room in L1;
// the fewer weights are left, the more a long block (fewer partial sums) is worth against rows that
// come from L2. Factors measured on whole networks, with L1 of 32 and 48 KiB.
// Products of bytes have fewer partial sums to keep than loops to begin: pat4 wants long blocks,
// and both formats do where a dot product takes a cycle, in which L2 gives half a vector.
int64_t SlabBytes(SpmmFormat format, double density, int64_t rows, const SpmmProblem& problem) {
  const CpuTraits& cpu = problem.cpu;
  const bool bytes = problem.bytes;
  const bool one = cpu.fma_per_cycle == 1.0 && problem.columns > 16;
  const double l1 = static_cast<double>(cpu.l1d_bytes);
  // With one multiply-add a cycle, a panel's rows take longer than L2 needs to send the next row of
  // X: blocks are as deep as L2 allows beside the planes that taps copy from.
  const bool slow_fma = cpu.halves_vectors && !bytes;
  if (slow_fma && SpmmIsPanel(format)) return cpu.l2_bytes / (problem.direct ? 4 : 8);
  if (SpmmIsDense(format)) return static_cast<int64_t>(std::min(0.75 * l1, 24.0 * 1024.0));
  double factor = density > 0.2 ? 1.1 : 1.35;
  if (slow_fma && !problem.direct) factor = 1.35;
  if (format == SpmmFormat::kCsr2 || (format == SpmmFormat::kCsr4 && !(kHasAny4 && bytes))) {
    // Two multiply-adds a cycle wait for X that is not in L1.
    const double shallow = cpu.fma_per_cycle > 1.0 ? 0.07 : 0.15;
    factor = density > shallow ? 0.9 : density > 0.07 ? 1.35 : 2.0;
    if (bytes) factor = density > 0.25 ? 0.65 : one ? 2.0 : density > 0.15 ? 0.9 : 1.2;
    if (HalvesVectors(cpu) && bytes && density > 0.15 && rows * problem.columns <= kFewSums) {
      factor = std::min(factor, 1.0);
    }
    // Large planes stream through L1 as well.
    const bool streamed = problem.direct && problem.columns > kLargePlane;
    if (slow_fma && density > shallow && !streamed) factor = problem.direct ? 1.1 : 1.2;
  } else if (format == SpmmFormat::kAny4) {
    factor = 1.6;
  } else if (kHasAny4 && bytes && format == SpmmFormat::kCsr4) {
    factor = 1.0;
  } else if (bytes && format == SpmmFormat::kPat4) {
    factor = one && density < 0.25 ? 2.4 : 1.6;
  }
  // Few weights share what taps have copied. The copies stay in L1 beside the planes they come
  // from.
  constexpr double kFedShare = 0.65;
  constexpr double kFewWeights = 0.15;
  if (!problem.direct && !bytes && cpu.fma_per_cycle > 1.0 && density < kFewWeights) {
    factor *= kFedShare;
  }
  return static_cast<int64_t>(factor * l1);
}
// pat4 of bytes: cycles of a panel's fifteen loops where so few tiles repeat their lengths that
// branch predictors do not learn them.
constexpr int kUnlearntTiles = 2;
constexpr double kUnlearntCycles = 320.0;
constexpr int64_t kMinBlockDepth = 32;
constexpr int64_t kMaxBlockDepth = 1024;
constexpr int64_t kMaxSquareDepth = 65536 - kSquareRows;
constexpr int64_t kMaxPiecesDepth = 512;  // of floats
// Vectors of a tile of floats when one tile cannot have all, and the weights are so few that the
// kernel keeps their pieces from tile to tile: less X is cut before the first product.
constexpr int kPiecesVecs = 6;
constexpr int64_t kKeptWeights = 128 * 1024;
// Cycles of a square times 16 columns, of the sums of 16 rows and columns at their end, and to
// spread a square of bits16.
constexpr double kSquareCycles = 34.0;
constexpr double kSquareEndCycles = 80.0;
constexpr double kSpreadCycles = 40.0;
// Of floats, which are cut into pieces: of a square times 16 columns, and to cut a square of
// weights, for the first tile, and a vector of X.
constexpr double kPiecesCycles = 53.0;
constexpr double kCutSquareCycles = 150.0;
constexpr double kCutCycles = 11.0;
// Vectors that each thread's tile should have for one tile to be cut.
constexpr int kMinSharedVecs = 4;

// any4: what a row's last four and the longer row of its pair add, in fours; to turn a K-row of X.
constexpr double kAny4Padding = 1.0;
constexpr double kTurnCycles = 16.0;
constexpr double kSlowAny4 = 1.7;  // where several instructions make a product of bytes

// Stacks: floats of a vector at least, lanes computed for each of Y at most, and rows of Y at
// least.
constexpr int kMinStackLanes = 8;
constexpr double kMaxStackLanes = 1.1;
constexpr int64_t kMinStackRows = 4;

constexpr int64_t kCsr4MinRows = 256;
constexpr int64_t kCsr4MinRowsByFours = 64;

// Vectors of a tile. A wide one reads and writes longer runs of a plane and broadcasts a weight for
// more multiply-adds; where those run at the speed of loads, deeper blocks gain more. Few non-zeros
// want the deepest ones, unless planes are so large that reading and writing them takes longer.
int PreferredVecs(const SpmmKernel& kernel, const SpmmProblem& problem, double density) {
  const bool pairs = kernel.format == SpmmFormat::kCsr2 || kernel.format == SpmmFormat::kCsr4;
  const bool slow_bytes = HalvesVectors(problem.cpu) && problem.bytes;
  const bool sparse_csr2 = pairs && density < (slow_bytes ? 0.25 : 0.15);
  if (SpmmIsDense(kernel.format)) return kernel.max_vecs;
  if (problem.cpu.fma_per_cycle > 1.0) {
    // 128 tokens: partial sums of two tiles of blocks twice as deep are half as many.
    const int64_t vecs = (problem.columns + kernel.lanes - 1) / kernel.lanes;
    const bool halved = sparse_csr2 && !problem.bytes && problem.direct && vecs == 8;
    return halved ? 4 : kernel.max_vecs;
  }
  return std::min(kernel.max_vecs, sparse_csr2 && problem.columns <= kLargePlane ? 4 : 6);
}

// Cycles of a vector that is copied for a stack.
constexpr double kStackFeedCycles = 3.0;

// Lanes computed for a row of Y; half a vector costs half.
double StackLanes(const Window& w, int lanes) {
  const int64_t unit = lanes > kMinStackLanes ? lanes / 2 : lanes;
  return static_cast<double>((w.out[1] + unit - 1) / unit * unit);
}

// Vectors that are copied for a channel.
int64_t StackCopies(const Window& w, const Tiling& tiling) {
  return w.kernel[1] * (int64_t{tiling.tile_vecs} + w.kernel[0] - 1);
}

// Cuts Y into stacks as high as tiles are wide. False: it should not be, for too many lanes would
// be empty, rows few or copies too many.
bool SetStacks(const SpmmProblem& problem, SpmmChoice* choice) {
  // With two multiply-adds a cycle, networks gain nothing.
  if (problem.cpu.fma_per_cycle > 1.0) return false;
  if (!kHasStacks || problem.window == nullptr || choice->kernel.lanes < kMinStackLanes) {
    return false;
  }
  const Window& w = *problem.window;
  const double lanes = StackLanes(w, choice->kernel.lanes);
  if (lanes > kMaxStackLanes * static_cast<double>(w.out[1])) return false;
  if (w.out[0] < kMinStackRows || w.in[0] * w.in[1] > INT32_MAX / 2) return false;
  choice->tiling =
      MakeStackTiling(w, choice->kernel.lanes, choice->kernel.max_vecs, &choice->stack_vecs);
  return StackCopies(w, choice->tiling) <= kMaxStackCopies;
}

// K-rows of a block of stacks whose copies have about so many bytes.
int64_t StackDepth(int64_t slab, const SpmmChoice& choice, const SpmmProblem& problem) {
  const Window& w = *problem.window;
  const int64_t copy =
      StackCopies(w, choice.tiling) * choice.kernel.lanes * static_cast<int64_t>(sizeof(float));
  const int64_t taps = w.kernel[0] * w.kernel[1];
  return std::max<int64_t>(1, std::min(slab / copy, kMaxBlockDepth / taps)) * taps;
}

// Multiply-adds of groups of four bytes a cycle, over those of floats: without products of bytes
// several instructions make one.
double BytesRate(Isa isa) {
  return isa == Isa::kAvx2 || isa == Isa::kNeon || isa == Isa::kScalar ? 0.3 : 1.0;
}

}  // namespace

int RankSpmm(const MatrixStats& stats, const SpmmProblem& problem, Isa isa, int forced_format,
             SpmmChoice* choices) {
  int count = 0;
  const double density =
      static_cast<double>(stats.nnz) /
      (static_cast<double>(stats.rows * stats.groups) * static_cast<double>(stats.depth));
  const bool full = density >= kFullDensity;
  for (int i = 0; i < kMaxSpmmChoices; ++i) {
    SpmmChoice choice;
    const bool stacked = i == static_cast<int>(SpmmFormat::kCount);
    if (stacked && !kHasStacks) break;
    const int f = stacked ? static_cast<int>(SpmmFormat::kCsr2) : i;
    const auto format = static_cast<SpmmFormat>(f);
    if (forced_format != kAnyFormat && f != forced_format) continue;
    const bool found = problem.bytes ? SelectQspmm(format, isa, &choice.kernel)
                                     : SelectSpmm(format, isa, &choice.kernel);
    if (!found) continue;
    // Few rows have few partners of equal length; what taps feed gains too little to be measured,
    // unless weights that are loaded by fours make each product cheaper. Of bytes: where a dot
    // product takes as long as a load, which other formats hide less of.
    const bool by_fours = kHasStacks && problem.cpu.halves_vectors && !problem.bytes;
    const bool may_be_fours = by_fours
                                  ? stats.rows >= kCsr4MinRowsByFours
                                  : stats.rows >= kCsr4MinRows && problem.direct &&
                                        (!kHasAny4 || !problem.bytes || problem.cpu.halves_vectors);
    if (format == SpmmFormat::kCsr4 && !may_be_fours && forced_format == kAnyFormat) continue;
    // Without zeros a sparse format is a dense one with needless indices.
    if (full && !SpmmIsDense(format) && forced_format == kAnyFormat) continue;
    const int lanes = choice.kernel.lanes;
    const int mr = SpmmPanelRows(format);
    const double fma =
        problem.cpu.fma_per_cycle * (problem.bytes ? BytesRate(choice.kernel.kernel.isa) : 1.0);
    const double preferred = PreferredVecs(choice.kernel, problem, density);
    choice.tiling = MakeTiling(problem.columns, lanes, choice.kernel.max_vecs, preferred);
    const bool has_own_tiles = stacked || SpmmHasSquares(format);
    if (problem.needs_tiling && has_own_tiles) continue;
    const bool is_tiled = problem.tiling != nullptr && !has_own_tiles;
    if (is_tiled &&
        (problem.tiling->lanes != lanes || problem.tiling->tile_vecs > choice.kernel.max_vecs)) {
      continue;
    }
    const bool keeps_pieces = stats.rows * stats.depth <= kKeptWeights;
    if (SpmmHasSquares(format) && !problem.bytes && keeps_pieces && choice.tiling.tiles > 1) {
      SetTiles(choice.tiling.vecs / kPiecesVecs, &choice.tiling);
    }
    // Threads share an image's tiles evenly, or its rows.
    int32_t tiles = choice.tiling.tiles;
    // A tile that would be split by rows: narrower ones, with deeper blocks, do better.
    if (tiles == 1 && problem.direct && !SpmmIsDense(format) &&
        problem.batch * stats.groups % problem.threads != 0 &&
        choice.tiling.vecs >= kMinSharedVecs * problem.threads) {
      SetTiles(problem.threads, &choice.tiling);
      tiles = problem.threads;
    }
    const int32_t uneven = tiles % problem.threads;
    const bool by_rows = problem.direct && !problem.may_tile && SharedByPlanes(problem.columns);
    if (!by_rows && problem.batch * stats.groups % problem.threads != 0 && tiles > 1 &&
        uneven != 0) {
      SetTiles(tiles + problem.threads - uneven, &choice.tiling);
    }
    if (is_tiled) choice.tiling = *problem.tiling;
    if (stacked && !SetStacks(problem, &choice)) continue;
    const double nv = static_cast<double>(choice.tiling.vecs) / choice.tiling.tiles;
    const int32_t slab_vecs = format == SpmmFormat::kAny4 ? kAny4Vecs : choice.tiling.tile_vecs;
    const int64_t slab = SlabBytes(format, density, stats.rows, problem);
    int64_t depth = slab / (slab_vecs * lanes * 4);
    depth = std::max(kMinBlockDepth, std::min(kMaxBlockDepth, depth));
    if (stacked) depth = StackDepth(slab, choice, problem);
    if (SpmmHasSquares(format)) {
      const int64_t column_bytes = problem.bytes ? 4 : 6;  // floats in three pieces
      const int64_t row_bytes = choice.tiling.tile_vecs * lanes * column_bytes;
      depth = std::min<int64_t>(kMaxSquareDepth, problem.cpu.l2_bytes / 4 / row_bytes);
      if (!problem.bytes) depth = std::min(depth, kMaxPiecesDepth);
    }
    if (format == SpmmFormat::kCsr4) depth = std::min<int64_t>(depth, kCsr4BlockDepth);
    const int64_t blocks = std::max<int64_t>(1, (stats.depth + depth - 1) / depth);
    // Blocks of about equal depth.
    depth = std::min<int64_t>(stats.depth, (stats.depth + blocks - 1) / blocks);
    if (stacked) {
      const int64_t taps = problem.window->kernel[0] * problem.window->kernel[1];
      depth = (depth + taps - 1) / taps * taps;
    }
    if (SpmmHasSquares(format) && blocks > 1) {
      const int64_t unit = problem.bytes ? kSquareRows : 2 * kSquareRows;
      depth = (depth + unit - 1) / unit * unit;
    }
    choice.block_depth = static_cast<int32_t>(std::max<int64_t>(1, depth));

    const double nnz = static_cast<double>(stats.nnz);
    const double groups = stats.groups;
    const double panels =
        groups * static_cast<double>((stats.rows + mr - 1) / mr) * static_cast<double>(blocks);
    double cycles = 0.0;
    double stored = nnz;
    switch (format) {
      case SpmmFormat::kDense:
      case SpmmFormat::kDense8:
        stored = groups * static_cast<double>((stats.rows + mr - 1) / mr) * mr *
                 static_cast<double>(stats.depth);
        cycles = stored * nv / fma *
                     (mr == 4     ? 1.15
                      : nv > 2.4  ? 1.05
                      : nv <= 1.0 ? 0.8  // twice the sums of four rows, which wait for each other
                                  : 1.3) +
                 panels * (8.0 + mr * nv);
        break;
      case SpmmFormat::kCsr:
        cycles = nnz * std::max(nv / fma * 1.3, 2.0) +
                 groups * static_cast<double>(stats.rows * blocks) * (14.0 + 2.0 * nv);
        break;
      case SpmmFormat::kCsr2:
        cycles = nnz * std::max(nv / fma * (problem.bytes ? 1.5 : 1.15), 2.0) +
                 groups * static_cast<double>(stats.rows * blocks) * (12.0 + 2.0 * nv);
        break;
      case SpmmFormat::kCsr4:
        cycles = nnz * std::max(nv / fma * (kHasAny4 && problem.bytes ? 1.25 : 1.08), 1.5) +
                 groups * static_cast<double>(stats.rows * blocks) * (10.0 + 2.0 * nv);
        break;
      case SpmmFormat::kPat4: {
        const bool learns = !problem.bytes || choice.tiling.tiles > kUnlearntTiles;
        cycles = nnz * nv / fma + static_cast<double>(stats.columns4) * 1.2 +
                 panels * ((learns ? 100.0 : kUnlearntCycles) + 4.0 * nv);
        break;
      }
      case SpmmFormat::kAny4: {
        if (!kHasAny4) break;
        const double rows = groups * static_cast<double>(stats.rows * blocks);
        const double fours = static_cast<double>(stats.bytes) / 4.0 + rows * kAny4Padding;
        const bool slow = BytesRate(choice.kernel.kernel.isa) < 1.0;
        const double shuffles = nv > 3.0 ? 8.0 : nv > 2.0 ? 7.0 : 4.5;
        stored = 2.0 * fours;
        cycles = fours * shuffles * (slow ? kSlowAny4 : 1.0) + rows * (10.0 + 2.0 * nv) +
                 groups * static_cast<double>(stats.depth) * kTurnCycles;
        break;
      }
      case SpmmFormat::kBsr4:
        stored = 4.0 * static_cast<double>(stats.columns4);
        cycles = stored * nv / fma * 1.05 + panels * (20.0 + 4.0 * nv);
        break;
      case SpmmFormat::kBsr8:
        stored = 8.0 * static_cast<double>(stats.columns8);
        cycles = stored * nv / fma * 1.05 + panels * (20.0 + 8.0 * nv);
        break;
      case SpmmFormat::kDense16:
      case SpmmFormat::kBits16: {
        const double squares =
            panels * static_cast<double>((depth + kSquareRows - 1) / kSquareRows);
        stored = squares * kSquareRows * kSquareRows;
        cycles = squares * nv * (problem.bytes ? kSquareCycles : kPiecesCycles) +
                 panels * nv * kSquareEndCycles;
        if (!problem.bytes) {
          cycles += squares * kCutSquareCycles / (keeps_pieces ? choice.tiling.tiles : 1) +
                    groups * static_cast<double>(stats.depth) * nv * kCutCycles;
        }
        if (format == SpmmFormat::kBits16) {
          cycles += squares * kSpreadCycles;
          stored = stored / 8.0 + nnz;
        }
        break;
      }
      default:
        break;
    }
    // Weights stream from L2 or beyond for every tile.
    cycles = std::max(cycles, stored * 6.0 / 16.0);
    if (stacked) {
      const Window& w = *problem.window;
      const auto copied = static_cast<double>(StackRows(choice.tiling.tile_vecs, w.kernel[0]));
      cycles += groups * static_cast<double>(stats.depth / w.kernel[0]) * copied * kStackFeedCycles;
    } else if (!problem.direct) {
      cycles += groups * static_cast<double>(stats.depth) * nv * problem.feed_cost;
    }
    if (stacked) {
      cycles *= StackLanes(*problem.window, lanes) / (choice.stack_vecs * lanes);
    }
    choice.predicted_ns =
        cycles * choice.tiling.tiles * static_cast<double>(problem.batch) * kNsPerCycle;
    choices[count++] = choice;
  }
  std::sort(choices, choices + count, [](const SpmmChoice& a, const SpmmChoice& b) {
    return a.predicted_ns < b.predicted_ns;
  });
  return count;
}

const char* FormatName(int format) {
  if (format == kWinogradFormat) return kWinogradName;
  return format < kWinogradFormat ? SpmmFormatName(static_cast<SpmmFormat>(format))
                                  : SpmvFormatName(static_cast<SpmvFormat>(format - kVectorFormat));
}

Status FormatFromName(const char* name, int* format) {
  *format = kAnyFormat;
  if (name == nullptr || name[0] == '\0') return Status::Ok();
  for (int f = 0; f < static_cast<int>(SpmmFormat::kCount); ++f) {
    if (strcmp(name, SpmmFormatName(static_cast<SpmmFormat>(f))) != 0) continue;
    *format = f;
    return Status::Ok();
  }
  if (strcmp(name, kWinogradName) == 0) {
    *format = kWinogradFormat;
    return Status::Ok();
  }
  for (int f = 0; f < static_cast<int>(SpmvFormat::kCount); ++f) {
    if (strcmp(name, SpmvFormatName(static_cast<SpmvFormat>(f))) != 0) continue;
    *format = kVectorFormat + f;
    return Status::Ok();
  }
  return Status::Error(StatusCode::kInvalidArgument,
                       "unknown compute format '%s'; known: dense, dense8, dense16, csr, csr2, "
                       "csr4, pat4, any4, bsr4, bsr8, bsr16, sell, bits, bits16, perm, winograd",
                       name);
}

}  // namespace sparsert
