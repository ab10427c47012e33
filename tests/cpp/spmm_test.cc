// spmm in every format, instruction set, tile width and blocking against a double reference.
#include "kernels/spmm/spmm.h"

#include <limits>

#include "plan/build_taps.h"
#include "plan/choose_spmm.h"
#include "plan/pack_spmm.h"
#include "plan/stacks.h"
#include "product_harness.h"

namespace sparsert {
namespace test {
namespace {

struct Problem {
  int32_t batch = 1;
  int32_t groups = 1;
  int64_t rows = 1;      // of one group
  int64_t channels = 1;  // of one group
  bool direct = false;
  bool transposed = false;
  int32_t stack_vecs = 0;  // vectors of a row of Y if tiles are stacks
  Window window;
  int64_t columns = 1;
  int32_t block_depth = 1;
  int32_t splits = 1;
  bool by_rows = false;
  bool fetches = false;
  bool by_blocks = false;
  bool x_in_tiles = false;
  bool r_in_tiles = false;
  bool y_in_tiles = false;
  int32_t pair_rows = kCsr2PanelRows;
  bool has_bias = false;
  bool has_residual = false;
  bool guard_at_end = true;
  double density = 0.5;
  Sparsity sparsity = Sparsity::kRandom;
  Activation act;
};

std::string Describe(const Problem& p, const SpmmKernel& kernel, const Tiling& tiling) {
  char text[400];
  std::snprintf(
      text, sizeof(text),
      "%s: batch %d, %d groups of %lldx%lld, %s, kernel %lldx%lld, %lld columns in %d "
      "tiles of %d vectors, blocks of %d, %d splits, by blocks %d, x, r and y in tiles %d %d %d, "
      "bias %d, residual %d, act %d, density %.2f, sparsity %d",
      kernel.kernel.name, p.batch, p.groups, static_cast<long long>(p.rows),
      static_cast<long long>(p.channels),
      p.direct       ? "direct"
      : p.transposed ? "transposed taps"
      : p.stack_vecs ? "stacks"
                     : "taps",
      static_cast<long long>(p.window.kernel[0]), static_cast<long long>(p.window.kernel[1]),
      static_cast<long long>(p.columns), tiling.tiles, tiling.tile_vecs, p.block_depth, p.splits,
      p.by_blocks, p.x_in_tiles, p.r_in_tiles, p.y_in_tiles, p.has_bias, p.has_residual,
      static_cast<int>(p.act.fn), p.density, static_cast<int>(p.sparsity));
  return text;
}

// Where images of planes of one group lie in memory.
struct Placing {
  const Tiling* tiling;  // nullptr: in planes
  int64_t rows;          // of an image
  int64_t row;           // floats from plane to plane
  int64_t image;         // and from image to image

  int64_t At(int64_t plane, int64_t column) const {
    const int64_t start = plane / rows * image;
    if (tiling == nullptr) return start + plane % rows * row + column;
    int32_t tile = 0;
    while (tiling->Begin(tile + 1) * int64_t{tiling->lanes} <= column) ++tile;
    const int64_t begin = tiling->Begin(tile) * int64_t{tiling->lanes};
    const int64_t width = tiling->Begin(tile + 1) * int64_t{tiling->lanes} - begin;
    return start + begin * rows + plane % rows * width + column - begin;
  }
};

void RunProblem(const Problem& p, const SpmmKernel& kernel, const Tiling& tiling, Random* random) {
  context = Describe(p, kernel, tiling);
  const bool squares = SpmmHasSquares(kernel.format);
  const Allocator* allocator = DefaultAllocator();
  const int64_t taps = p.direct ? 1 : p.window.kernel[0] * p.window.kernel[1];
  const int64_t depth = p.channels * taps;
  const std::vector<float> w =
      RandomMatrix(p.groups * p.rows, depth, p.density, p.sparsity, random);
  Csr csr(allocator);
  FillCsr(w, p.groups * p.rows, depth, &csr);
  PackedSpmm packed(allocator);
  const int32_t pair_rows =
      kernel.format == SpmmFormat::kCsr4 ? (p.pair_rows + 3) / 4 * 4 : p.pair_rows;
  const bool stacked = kHasStacks && p.stack_vecs != 0;
  Must(PackSpmm(csr, p.groups, static_cast<int32_t>(taps), kernel.format, p.direct || stacked,
                p.block_depth, pair_rows, &packed));
  if (stacked) {
    const auto width = static_cast<int32_t>(p.window.kernel[1]);
    const auto height = static_cast<int32_t>(p.window.kernel[0]);
    Must(StackIds(static_cast<int32_t>(taps), width, StackRows(tiling.tile_vecs, height), &packed));
  }

  SpmmArgs a;
  a.batch = p.batch;
  a.groups = p.groups;
  a.tiles = tiling.tiles;
  a.vecs = tiling.vecs;
  a.tile_vecs = tiling.tile_vecs;
  a.columns = p.columns;
  a.direct = p.direct;
  Bump bump(allocator);
  if (stacked) {
    a.stack = MakeStack(p.window, p.stack_vecs, p.block_depth / static_cast<int32_t>(taps));
  } else if (!p.direct) {
    Must(BuildTaps(p.window, p.transposed, PlaneLayout(p.window, false), tiling, &bump, &a.taps));
  }

  // Direct rows may be read up to a whole vector; by taps nothing behind the plane may be.
  const int64_t plane = p.window.in[0] * p.window.in[1];
  const int64_t padded = (p.columns + kernel.lanes - 1) / kernel.lanes * kernel.lanes;
  const bool may_tile = kHasTiledPlanes && p.groups == 1 && !squares && !stacked;
  a.x_in_tiles = may_tile && p.direct && p.x_in_tiles;
  a.r_in_tiles = may_tile && p.r_in_tiles;
  a.y_in_tiles = may_tile && p.y_in_tiles;
  a.x_row = p.direct ? padded : plane + random->Int(0, 2);
  a.x_group = a.x_row * p.channels;
  a.x_image = a.x_group * p.groups;
  a.y_row = a.y_in_tiles ? padded : p.columns + random->Int(0, 20);
  a.y_group = a.y_row * p.rows;
  a.y_image = a.y_group * p.groups;
  a.r_row = a.r_in_tiles ? padded : p.columns + random->Int(0, 3);
  a.r_group = a.r_row * p.rows;
  a.r_image = a.r_group * p.groups;
  const float nan = std::nanf("");
  // The last row ends with its last element that may be read.
  const int64_t x_used = p.batch * a.x_image - (p.direct ? 0 : a.x_row - plane);
  Guarded x(x_used, p.guard_at_end, nan);
  Guarded r(p.batch * a.r_image - (a.r_row - p.columns), p.guard_at_end, nan);
  Guarded y(p.batch * a.y_image - (a.y_row - p.columns), p.guard_at_end, nan);
  const Placing x_at = {a.x_in_tiles ? &tiling : nullptr, p.groups * p.channels, a.x_row,
                        a.x_image};
  const Placing r_at = {a.r_in_tiles ? &tiling : nullptr, p.groups * p.rows, a.r_row, a.r_image};
  const Placing y_at = {a.y_in_tiles ? &tiling : nullptr, p.groups * p.rows, a.y_row, a.y_image};
  const int64_t x_columns = p.direct ? p.columns : plane;
  for (int64_t row = 0; row < p.batch * p.groups * p.channels; ++row) {
    for (int64_t i = 0; i < x_columns; ++i) x[x_at.At(row, i)] = Quarter(random, 2);
  }
  const int64_t out_rows = static_cast<int64_t>(p.batch) * p.groups * p.rows;
  for (int64_t row = 0; row < out_rows; ++row) {
    for (int64_t i = 0; i < p.columns; ++i) r[r_at.At(row, i)] = Quarter(random, 4);
  }
  std::vector<float> bias(static_cast<size_t>(p.groups * p.rows));
  for (float& b : bias) b = Quarter(random, 4);
  if (p.has_bias) a.bias = bias.data();
  a.act = p.act;

  a.weights = packed.groups.data();
  a.splits = std::min(p.splits, packed.groups[0].panels);
  std::vector<int32_t> bounds(static_cast<size_t>(p.groups * (a.splits + 1)));
  for (int32_t g = 0; g < p.groups; ++g) {
    int32_t* group_bounds = bounds.data() + g * (a.splits + 1);
    SplitPanels(packed.groups[g], kernel.format, a.splits, group_bounds);
    bool rising = group_bounds[0] == 0 && group_bounds[a.splits] == packed.groups[g].panels;
    for (int32_t s = 0; s < a.splits; ++s) rising &= group_bounds[s] <= group_bounds[s + 1];
    Expect(rising, "row splits must rise from 0 to the number of panels");
  }
  a.split_panels = bounds.data();
  a.by_rows = p.by_rows;
  a.fetch_x = a.fetch_ahead = a.fetch_weights = p.fetches;
  a.join_ends = !p.by_rows;
  a.weights_by_fours = !p.fetches;
  a.by_blocks = p.by_blocks && !squares && !stacked;

  Run(kernel.kernel, &a, {x.data(), p.has_residual ? r.data() : nullptr, y.data()}, SpmmItems(a),
      squares ? SpmmSquareScratch(a, p.block_depth) : SpmmScratch(a, kernel.lanes, p.block_depth));

  ++checks;
  for (int64_t row = 0; row < out_rows; ++row) {
    const int64_t image = row / (p.groups * p.rows);
    const int64_t weight_row = row % (p.groups * p.rows);
    const int64_t group = weight_row / p.rows;
    const int64_t x_plane = (image * p.groups + group) * p.channels;
    const float* wr = w.data() + weight_row * depth;
    for (int64_t i = 0; i < a.y_row; ++i) {
      const int64_t at = y_at.At(row, i);
      if (i >= p.columns) {
        if (at < y.size() && !std::isnan(y[at])) return Fail("wrote behind a row of Y");
        continue;
      }
      double sum = p.has_bias ? bias[static_cast<size_t>(weight_row)] : 0.0;
      for (int64_t k = 0; k < depth; ++k) {
        if (wr[k] == 0.0f) continue;
        const int64_t offset = p.direct ? i : TapOffset(p.window, p.transposed, i, k % taps);
        if (offset < 0) continue;
        sum += static_cast<double>(wr[k]) * x[x_at.At(x_plane + k / taps, offset)];
      }
      if (p.has_residual) sum += r[r_at.At(row, i)];
      if (Matches(p.act, y[at], sum)) continue;
      char text[160];
      std::snprintf(text, sizeof(text), "row %lld, column %lld: got %.9g, want f(%.9g) = %.9g",
                    static_cast<long long>(row), static_cast<long long>(i),
                    static_cast<double>(y[at]), sum, Activate(p.act, sum));
      return Fail(text);
    }
  }
}

// A problem whose sizes, blocking, splits, fusions and sparsity follow from `number`.
Problem SomeProblem(int number, int64_t columns, Random* random) {
  static const int64_t kRows[] = {1, 3, 4, 5, 8, 9, 17, 2, 7, 33, 65, 130};
  static const int64_t kChannels[] = {1, 3, 4, 5, 8, 17, 35, 2};
  static const int32_t kBlocks[] = {1, 3, 32, 4096};
  static const double kDensities[] = {1.0, 0.5, 0.1, 0.9, 0.25};
  static const Sparsity kSorts[] = {
      Sparsity::kRandom,       Sparsity::kRowPanels, Sparsity::kRandom, Sparsity::kEmptyRows,
      Sparsity::kEmptyColumns, Sparsity::kRandom,    Sparsity::kOne,    Sparsity::kNone};
  Problem p;
  p.rows = kRows[random->Int(0, 11)];
  p.channels = kChannels[random->Int(0, 7)];
  p.block_depth = kBlocks[number % 4];
  if (p.block_depth == 32 && number % 3 == 0) p.channels += 40;
  p.density = kDensities[random->Int(0, 4)];
  p.sparsity = kSorts[random->Int(0, 7)];
  p.batch = static_cast<int32_t>(random->Int(1, 2));
  p.groups = static_cast<int32_t>(number % 3 == 0 ? random->Int(2, 3) : 1);
  p.splits = static_cast<int32_t>(random->Int(1, 4));
  p.has_bias = random->Int(0, 1) == 1;
  p.has_residual = random->Int(0, 2) == 0;
  p.guard_at_end = random->Int(0, 1) == 1;
  p.act = SomeActivation(number);
  p.direct = random->Int(0, 1) == 0;
  p.transposed = random->Int(0, 2) == 0;
  if (p.direct) {
    p.transposed = false;
    p.columns = columns;
    p.window.in[1] = p.window.out[1] = columns;
  } else {
    p.rows = std::min<int64_t>(p.rows, 33);
    p.window = RandomWindow(random, p.transposed, std::max<int64_t>(1, columns / 2));
    p.columns = p.window.out[0] * p.window.out[1];
  }
  static const int32_t kCsr2Rows[] = {2, 16, 64, kCsr2PanelRows};
  p.by_rows = random->Int(0, 1) == 1;
  p.fetches = random->Int(0, 1) == 1;
  p.by_blocks = random->Int(0, 1) == 1;
  p.x_in_tiles = random->Int(0, 1) == 1;
  p.r_in_tiles = random->Int(0, 1) == 1;
  p.y_in_tiles = random->Int(0, 1) == 1;
  p.pair_rows = kCsr2Rows[random->Int(0, 3)];
  return p;
}

void TestWidths(const SpmmKernel& kernel, Random* random) {
  int number = static_cast<int>(random->Int(0, 1000));
  for (int max = 1; max <= kernel.max_vecs; ++max) {
    const int64_t widest = static_cast<int64_t>(max) * kernel.lanes;
    const int64_t columns[] = {1,          kernel.lanes - 1, kernel.lanes, kernel.lanes + 1,
                               widest - 1, widest,           widest + 3,   2 * widest + 1,
                               97};
    for (const int64_t c : columns) {
      for (const double preferred : {1.0, 2.5, static_cast<double>(max)}) {
        const Problem p = SomeProblem(number++, std::max<int64_t>(1, c), random);
        const Tiling tiling = MakeTiling(p.columns, kernel.lanes, max, preferred);
        Expect(tiling.tile_vecs <= max, "a tile is wider than asked for");
        RunProblem(p, kernel, tiling, random);
      }
    }
  }
}

// Every tile of exactly n vectors, the last one whole, cut, or of one column, one block and
// several.
void TestEveryTile(const SpmmKernel& kernel, Random* random) {
  for (int vecs = 1; vecs <= kernel.max_vecs; ++vecs) {
    for (const int cut : {0, 1, kernel.lanes - 1}) {
      for (const int32_t block_depth : {5, 64}) {
        for (const bool direct : {false, true}) {
          Problem p;
          p.rows = 11;
          p.channels = 13;
          p.direct = direct;
          p.columns = static_cast<int64_t>(vecs) * kernel.lanes - cut;
          p.window.in[1] = p.window.out[1] = p.columns;
          p.block_depth = block_depth;
          p.has_bias = p.has_residual = true;
          p.act = SomeActivation(vecs % 2 == 0 ? static_cast<int>(UnaryFn::kTanh)
                                               : static_cast<int>(UnaryFn::kRelu));
          const Tiling tiling = MakeTiling(p.columns, kernel.lanes, vecs, vecs);
          Expect(tiling.tile_vecs == vecs && tiling.tiles == 1, "one tile of the width asked for");
          RunProblem(p, kernel, tiling, random);
        }
      }
    }
  }
}

// Stacks of every height, of whole vectors and of parts, in one block and several.
void TestStacks(const SpmmKernel& kernel, Random* random) {
  int number = 0;
  for (int high = 1; high <= kernel.max_vecs; ++high) {
    const int64_t lanes = kernel.lanes;
    for (const int64_t wide :
         {int64_t{1}, lanes / 2, lanes / 2 + 1, lanes, lanes + lanes / 2, 2 * lanes + 3}) {
      for (const int64_t size : {1, 3, 5}) {
        Problem p = SomeProblem(number++, wide, random);
        p.direct = p.transposed = false;
        p.window = Window();
        p.window.spatial_rank = 2;
        for (int d = 0; d < 2; ++d) {
          p.window.kernel[d] = std::max<int64_t>(1, size - (number + d) % 2);
          p.window.pad_begin[d] = random->Int(0, static_cast<int>(p.window.kernel[d]));
          p.window.pad_end[d] = random->Int(0, static_cast<int>(p.window.kernel[d]));
          p.window.out[d] = d == 1 ? wide : random->Int(1, 2 * high + 1);
          // Not below 1: then Y is larger instead.
          const int64_t pads = p.window.pad_begin[d] + p.window.pad_end[d];
          p.window.in[d] = std::max<int64_t>(1, p.window.out[d] + p.window.kernel[d] - 1 - pads);
          p.window.out[d] = p.window.in[d] + pads - p.window.kernel[d] + 1;
        }
        if (p.window.out[0] < 1 || p.window.out[1] < 1) continue;
        p.columns = p.window.out[0] * p.window.out[1];
        const auto taps = static_cast<int32_t>(p.window.kernel[0] * p.window.kernel[1]);
        p.block_depth = taps * static_cast<int32_t>(number % 2 == 0 ? p.channels : 2);
        const Tiling tiling = MakeStackTiling(p.window, kernel.lanes, high, &p.stack_vecs);
        Expect(tiling.tile_vecs <= high, "a stack is higher than asked for");
        RunProblem(p, kernel, tiling, random);
      }
    }
  }
}

// Kernels whose copies 16 bits cannot tell apart have no stacks.
void TestLargestStacks(Isa isa) {
  for (const int64_t size : {3, 250, 254, 256}) {
    context = "stacks of kernels " + std::to_string(size) + " wide and high";
    Window window;
    window.spatial_rank = 2;
    for (int d = 0; d < 2; ++d) {
      window.kernel[d] = size;
      window.out[d] = 16;
      window.in[d] = size + 15;
    }
    MatrixStats stats;
    stats.rows = 4;
    stats.depth = size * size;
    stats.nnz = stats.depth / 10;
    SpmmProblem problem;
    problem.cpu.fma_per_cycle = 1.0;
    problem.columns = 256;
    problem.window = &window;
    SpmmChoice choices[kMaxSpmmChoices];
    const int count = RankSpmm(stats, problem, isa, kAnyFormat, choices);
    bool stacked = false;
    for (int i = 0; i < count; ++i) {
      if (choices[i].stack_vecs == 0) continue;
      stacked = true;
      const int64_t copied = size * StackRows(choices[i].tiling.tile_vecs, static_cast<int>(size));
      Expect(copied <= kMaxStackCopies, "more copies than ids");
    }
    Expect(stacked == (size <= 250), "stacks as long as ids can name their copies");
  }
  PackedSpmm packed(DefaultAllocator());
  Must(packed.ids.push_back(UINT16_MAX));
  Expect(!StackIds(65536, 256, 257, &packed).ok(), "an id that 16 bits cannot hold");
}

// Counts and ids at their 16-bit limits, and a long K in blocks as the plan cuts it.
void TestDeep(const SpmmKernel& kernel, Random* random) {
  for (const int32_t block_depth : {512, 65535}) {
    for (const bool direct : {false, true}) {
      for (const double density : {1.0, 0.05}) {
        Problem p;
        p.rows = 9;
        p.channels = block_depth == 512 ? 1300 : 66000;
        p.direct = direct;
        p.columns = 3;
        p.window.in[1] = p.window.out[1] = 3;
        p.block_depth = block_depth;
        p.density = density;
        RunProblem(p, kernel, MakeTiling(3, kernel.lanes, 1, 1), random);
      }
    }
  }
}

// The largest panels, in which most rows find partners of equal length, and a part of one.
void TestLargePanels(const SpmmKernel& kernel, Random* random) {
  for (const bool direct : {false, true}) {
    Problem p;
    p.rows = kCsr4PanelRows + 79;
    p.channels = 150;
    p.direct = direct;
    p.columns = kernel.lanes + 1;
    p.window.in[1] = p.window.out[1] = p.columns;
    p.block_depth = 64;
    p.splits = 2;
    p.pair_rows = SpmmPanelRows(kernel.format);
    p.density = 0.1;
    p.fetches = direct;
    p.has_residual = direct;
    RunProblem(p, kernel, MakeTiling(p.columns, kernel.lanes, kernel.max_vecs, 2), random);
  }
}

// One product of `rows` x `depth` weights and 45 columns, directly in three tiles, or by one tap in
// one, in blocks of 64.
std::vector<float> Product(const SpmmKernel& kernel, const std::vector<float>& w, int64_t rows,
                           std::vector<float>* x, bool direct) {
  constexpr int64_t kColumns = 45;
  constexpr int64_t kRow = 48;
  constexpr int32_t kBlock = 64;
  const auto depth = static_cast<int64_t>(w.size()) / rows;
  Csr csr(DefaultAllocator());
  FillCsr(w, rows, depth, &csr);
  PackedSpmm packed(DefaultAllocator());
  Must(PackSpmm(csr, 1, 1, kernel.format, direct, kBlock, kCsr2PanelRows, &packed));
  const int tile_vecs = direct ? 1 : kernel.max_vecs;
  const Tiling tiling = MakeTiling(kColumns, kernel.lanes, tile_vecs, tile_vecs);
  SpmmArgs a;
  a.tiles = tiling.tiles;
  a.vecs = tiling.vecs;
  a.tile_vecs = tiling.tile_vecs;
  a.columns = kColumns;
  a.direct = direct;
  Bump bump(DefaultAllocator());
  Window window;
  window.spatial_rank = 2;
  window.in[1] = window.out[1] = kColumns;
  if (!direct) Must(BuildTaps(window, false, PlaneLayout(window, false), tiling, &bump, &a.taps));
  a.x_row = a.y_row = kRow;
  a.weights = packed.groups.data();
  const int32_t bounds[] = {0, packed.groups[0].panels};
  a.split_panels = bounds;
  std::vector<float> y(static_cast<size_t>(rows * kRow));
  Run(kernel.kernel, &a, {x->data(), nullptr, y.data()}, SpmmItems(a),
      SpmmHasSquares(kernel.format) ? SpmmSquareScratch(a, kBlock)
                                    : SpmmScratch(a, kernel.lanes, kBlock));
  return y;
}

// Products of pieces against those of floats: as exact, whatever the range of the numbers, and as
// infinite.
void TestPieces(const SpmmKernel& kernel, Random* random) {
  constexpr int64_t kRows = 35;
  constexpr int64_t kDepth = 150;
  constexpr int64_t kRow = 48;
  SpmmKernel floats;
  Must(SelectSpmm(SpmmFormat::kDense, Isa::kAvx512, &floats)
           ? Status::Ok()
           : Status::Error(StatusCode::kUnsupported, "no dense kernel"));
  for (const int range : {0, 20, 50}) {
    for (const bool direct : {false, true}) {
      context = std::string(kernel.kernel.name) + ", range 2^" + std::to_string(range);
      auto number = [&] {
        return static_cast<float>(
            std::ldexp(random->Uniform(-2, 2), static_cast<int>(random->Int(-range, range))));
      };
      std::vector<float> w(kRows * kDepth);
      std::vector<float> x(kDepth * kRow);
      for (float& v : w) v = random->Int(0, 3) == 0 ? 0.0f : number();
      for (float& v : x) v = number();
      const std::vector<float> y = Product(kernel, w, kRows, &x, direct);
      const std::vector<float> z = Product(floats, w, kRows, &x, direct);
      double error = 0.0;
      double error_of_floats = 0.0;
      for (int64_t r = 0; r < kRows; ++r) {
        for (int64_t i = 0; i < 45; ++i) {
          double sum = 0.0;
          double size = 0.0;
          for (int64_t k = 0; k < kDepth; ++k) {
            const double product = static_cast<double>(w[r * kDepth + k]) * x[k * kRow + i];
            sum += product;
            size += std::fabs(product);
          }
          error = std::max(error, std::fabs(y[r * kRow + i] - sum) / size);
          error_of_floats = std::max(error_of_floats, std::fabs(z[r * kRow + i] - sum) / size);
        }
      }
      ++checks;
      if (!(error <= std::ldexp(1.0, -21) && error <= 2.0 * error_of_floats)) {
        Fail("errors " + std::to_string(error * 1e7) + "e-7, of floats " +
             std::to_string(error_of_floats * 1e7) + "e-7");
      }
    }
  }
  // Column 3 has an infinite input, 20 and 44 others; of the weights one is.
  const float infinity = std::numeric_limits<float>::infinity();
  for (const bool in_weights : {false, true}) {
    for (const bool direct : {false, true}) {
      context = std::string(kernel.kernel.name) + ", infinite";
      std::vector<float> w(kRows * kDepth);
      std::vector<float> x(kDepth * kRow);
      for (float& v : w) v = random->Int(0, 2) == 0 ? 0.0f : NonZeroQuarter(random, 2);
      for (float& v : x) v = NonZeroQuarter(random, 2);
      for (int64_t i = 0; i < 45; i += 11) x[7 * kRow + i] = 1e-40f;
      x[70 * kRow + 3] = infinity;
      x[70 * kRow + 20] = -infinity;
      x[149 * kRow + 20] = infinity;
      x[149 * kRow + 44] = std::nanf("");
      x[149 * kRow + 45] = infinity;  // behind the last column
      if (in_weights) w[18 * kDepth + 140] = infinity;
      const std::vector<float> y = Product(kernel, w, kRows, &x, direct);
      ++checks;
      for (int64_t r = 0; r < kRows; ++r) {
        for (int64_t i = 0; i < 45; ++i) {
          float want = 0.0f;
          for (int64_t k = 0; k < kDepth; ++k) {
            const float value = w[r * kDepth + k];
            // What bits16 does not store adds nothing, were it infinite.
            if (value == 0.0f && kernel.format == SpmmFormat::kBits16) continue;
            const float input = x[k * kRow + i];
            want += value * (std::fabs(input) < 1e-38f ? 0.0f : input);
          }
          const float got = y[r * kRow + i];
          if (got == want || (std::isnan(got) && std::isnan(want))) continue;
          return Fail("row " + std::to_string(r) + ", column " + std::to_string(i) + ": got " +
                      std::to_string(got) + ", want " + std::to_string(want));
        }
      }
    }
  }
}

}  // namespace
}  // namespace test
}  // namespace sparsert

int main() {
  using namespace sparsert;        // NOLINT
  using namespace sparsert::test;  // NOLINT
  Random random(20);
  for (const Isa isa : Isas()) {
    for (int f = 0; f < kFloatFormats; ++f) {
      SpmmKernel kernel;
      const bool found = SelectSpmm(static_cast<SpmmFormat>(f), isa, &kernel);
      const bool is_left_out = static_cast<SpmmFormat>(f) == SpmmFormat::kCsr4 && isa == Isa::kNeon;
      Expect(is_left_out ? !found : found && kernel.kernel.isa == isa,
             "every format but csr4 on NEON has a kernel on every ISA");
      if (!found) continue;
      TestEveryTile(kernel, &random);
      if (kHasStacks && kernel.format == SpmmFormat::kCsr2 && kernel.lanes >= 8) {
        TestStacks(kernel, &random);
        TestLargestStacks(isa);
      }
      TestWidths(kernel, &random);
      TestDeep(kernel, &random);
      TestLargePanels(kernel, &random);
    }
  }
  for (const SpmmFormat format : {SpmmFormat::kDense16, SpmmFormat::kBits16}) {
    SpmmKernel kernel;
    if (!IsaAvailable(Isa::kAmx) || !SelectSpmm(format, Isa::kAmx, &kernel)) {
      std::printf("skipped: no AMX for %s\n", SpmmFormatName(format));
      continue;
    }
    TestEveryTile(kernel, &random);
    TestWidths(kernel, &random);
    TestDeep(kernel, &random);
    TestPieces(kernel, &random);
  }
  return Finish("spmm_test");
}
