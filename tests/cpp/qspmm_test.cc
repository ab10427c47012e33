// qspmm in every format, instruction set, tile width and blocking against sums in 64 bits. Results
// must match to the bit: sums are exact, and what follows rounds alike everywhere.
#include "kernels/qspmm/qspmm.h"

#include "byte_products.h"
#include "plan/build_taps.h"
#include "plan/pack_spmm.h"

namespace sparsert {
namespace test {
namespace {

std::string Describe(const Problem& p, const QspmmKernel& kernel, const Tiling& tiling) {
  char text[400];
  std::snprintf(text, sizeof(text),
                "%s: batch %d, %d groups of %lldx%lld, %s, kernel %lldx%lld, %lld columns in %d "
                "tiles of %d vectors, blocks of %d, %d splits, %s, bias %d, residual %d, "
                "density %.2f, sparsity %d",
                kernel.kernel.name, p.batch, p.groups, static_cast<long long>(p.rows),
                static_cast<long long>(p.channels), p.direct ? "direct" : "taps",
                static_cast<long long>(p.window.kernel[0]),
                static_cast<long long>(p.window.kernel[1]), static_cast<long long>(p.columns),
                tiling.tiles, tiling.tile_vecs, p.block_depth, p.splits,
                p.f32_output ? "floats" : "bytes", p.has_bias, p.has_residual, p.density,
                static_cast<int>(p.sparsity));
  return text;
}

// Elementwise behind a product, computed with it, against the same on the bytes that the product
// alone has left in y.
void RunThen(const Problem& p, const QspmmKernel& kernel, const QspmmArgs& product, Guarded* x,
             Guarded* y, Random* random) {
  Kernel elementwise;
  Expect(SelectQuantize(QuantizeOp::kElementwise, kernel.kernel.isa, &elementwise), "a kernel");
  static constexpr UnaryFn kFunctions[] = {UnaryFn::kNone, UnaryFn::kRelu, UnaryFn::kGelu,
                                           UnaryFn::kGeluTanh};
  QuantizeArgs then;
  then.act.fn = kFunctions[random->Int(0, 3)];
  then.is_coarse = random->Int(0, 1) == 1 && then.act.fn >= UnaryFn::kGelu;
  then.r_is_float = random->Int(0, 1) == 1;
  then.y_is_float = random->Int(0, 1) == 1;
  then.batch = p.batch;
  then.planes = Quads(p.rows);
  then.channels = p.rows;
  then.columns = p.columns;
  then.x_image = product.product.y_image;
  then.x_plane = product.product.y_row;
  then.b_plane = p.columns + random->Int(0, 3);
  then.b_image = then.b_plane * (then.r_is_float ? p.rows : then.planes);
  then.y_plane = p.columns + random->Int(0, 3);
  then.y_image = then.y_plane * (then.y_is_float ? p.rows : then.planes);
  then.scale = static_cast<float>(random->Uniform(0.01, 0.1));
  then.b_scale = static_cast<float>(random->Uniform(0.01, 0.1));
  then.y_factor = static_cast<float>(random->Uniform(10.0, 50.0));
  then.x_zero = product.zero;
  then.b_zero = static_cast<int32_t>(random->Int(0, 255));
  then.zero = static_cast<int32_t>(random->Int(0, 255));
  then.low = random->Int(0, 1) == 1 ? then.zero : 0;
  std::vector<float> bias(static_cast<size_t>(p.rows));
  for (float& value : bias) value = static_cast<float>(random->Uniform(-2.0, 2.0));
  if (random->Int(0, 1) == 1) then.bias = bias.data();
  const float nan = std::nanf("");
  Guarded r(p.batch * then.b_image, true, 0.0f);
  Guarded want(p.batch * then.y_image, true, nan);
  Guarded got(want.size(), true, nan);
  for (int64_t i = 0; i < r.size(); ++i) {
    for (int b = 0; b < 4; ++b) Bytes(&r)[4 * i + b] = SomeByte(random);
    if (then.r_is_float) r[i] = Quarter(random, 4);
  }
  float* residual = random->Int(0, 2) == 0 ? nullptr : r.data();
  Run(elementwise, &then, {y->data(), residual, want.data()}, QuantizeItems(then), 0);
  QspmmArgs q = product;
  q.then = &then;
  q.product.r_image = then.b_image;
  q.product.r_row = then.b_plane;
  q.product.y_image = then.y_image;
  q.product.y_row = then.y_plane;
  Run(kernel.kernel, &q, {x->data(), residual, got.data(), nullptr}, SpmmItems(q.product),
      QspmmScratch(q, kernel, p.block_depth));
  ++checks;
  if (std::memcmp(got.data(), want.data(), static_cast<size_t>(4 * got.size())) != 0) {
    Fail("what is computed with the product differs from what is computed behind it");
  }
}

void RunProblem(Problem p, const QspmmKernel& kernel, const Tiling& tiling, Random* random) {
  if (SpmmHasSquares(kernel.format)) {  // blocks of whole ones
    p.block_depth = std::min(65520, (p.block_depth + kSquareRows - 1) / kSquareRows * kSquareRows);
  }
  context = Describe(p, kernel, tiling);
  const Allocator* allocator = DefaultAllocator();
  const int64_t taps = p.direct ? 1 : p.window.kernel[0] * p.window.kernel[1];
  const int64_t depth = p.channels * taps;
  const int64_t all_rows = p.groups * p.rows;
  const std::vector<int8_t> w = RandomBytes(p, taps, random);
  Csr csr(allocator);
  FillQuads(w, all_rows, p.channels, taps, &csr);
  PackedSpmm packed(allocator);
  const int fours = random->Int(0, 1) == 0 ? 8 : kCsr4PanelRows;
  const int pair_rows = kernel.format == SpmmFormat::kCsr4 ? fours : kQspmmCsr2Rows;
  Must(PackSpmm(csr, p.groups, static_cast<int32_t>(taps), kernel.format, p.direct, p.block_depth,
                pair_rows, &packed));

  QspmmArgs q;
  SpmmArgs& a = q.product;
  a.batch = p.batch;
  a.groups = p.groups;
  a.tiles = tiling.tiles;
  a.vecs = tiling.vecs;
  a.tile_vecs = tiling.tile_vecs;
  a.columns = p.columns;
  a.direct = p.direct;
  Bump bump(allocator);
  if (!p.direct)
    Must(BuildTaps(p.window, false, PlaneLayout(p.window, false), tiling, &bump, &a.taps));

  const int64_t plane = p.window.in[0] * p.window.in[1];
  const int64_t padded = (p.columns + kernel.lanes - 1) / kernel.lanes * kernel.lanes;
  const int64_t out_planes = p.f32_output ? p.rows : Quads(p.rows);
  a.x_row = p.direct ? padded : plane + random->Int(0, 2);
  a.x_group = a.x_row * Quads(p.channels);
  a.x_image = a.x_group * p.groups;
  a.y_row = p.columns + random->Int(0, 20);
  a.y_group = a.y_row * out_planes;
  a.y_image = a.y_group * p.groups;
  a.r_row = p.columns + random->Int(0, 3);
  a.r_group = a.r_row * out_planes;
  a.r_image = a.r_group * p.groups;
  const float nan = std::nanf("");
  const int64_t x_used = p.batch * a.x_image - (p.direct ? 0 : a.x_row - plane);
  Guarded x(x_used, p.guard_at_end, 0.0f);
  Guarded r(p.batch * a.r_image - (a.r_row - p.columns), p.guard_at_end, nan);
  Guarded y(p.batch * a.y_image - (a.y_row - p.columns), p.guard_at_end, nan);
  for (int64_t i = 0; i < 4 * x_used; ++i) Bytes(&x)[i] = SomeByte(random);
  for (int64_t i = 0; i < r.size(); ++i) {
    if (p.f32_output) {
      r[i] = Quarter(random, 4);
    } else {
      for (int b = 0; b < 4; ++b) Bytes(&r)[4 * i + b] = SomeByte(random);
    }
  }
  // Scales which send sums all over the range of bytes, and beyond it.
  const int x_zero = static_cast<int>(random->Int(0, 2) == 0 ? 0 : random->Int(0, 255));
  q.half_tails = random->Int(0, 1) == 1;
  q.fill = static_cast<uint8_t>(x_zero);
  q.f32_output = p.f32_output;
  q.zero = static_cast<int32_t>(random->Int(0, 255));
  q.low = random->Int(0, 1) == 1 ? q.zero : 0;
  q.high = static_cast<int32_t>(random->Int(q.zero, 255));
  q.sum_scale = static_cast<float>(random->Uniform(0.2, 1.7));
  q.r_scale = static_cast<float>(random->Uniform(0.2, 1.7));
  q.r_zero = static_cast<int32_t>(random->Int(0, 1) == 0 ? 0 : random->Int(0, 255));
  q.out_zero = static_cast<int32_t>(random->Int(0, 255));
  q.out_low = random->Int(0, 1) == 1 ? q.out_zero : 0;
  if (random->Int(0, 2) == 0) q.zero = q.low = q.out_zero = q.out_low = 0;
  if (random->Int(0, 2) == 0) q.high = 255;
  std::vector<int32_t> bias(static_cast<size_t>(all_rows));
  std::vector<int32_t> start(static_cast<size_t>(all_rows));
  std::vector<float> scale(static_cast<size_t>(all_rows));
  std::vector<float> f32_bias(static_cast<size_t>(all_rows));
  std::vector<int32_t> row_weights(static_cast<size_t>(all_rows));
  const bool at_run = p.f32_output && random->Int(0, 1) == 1;
  for (int64_t row = 0; row < all_rows; ++row) {
    const auto i = static_cast<size_t>(row);
    int64_t weights = 0;
    for (int64_t k = 0; k < depth; ++k) weights += w[i * static_cast<size_t>(depth) + k];
    row_weights[i] = static_cast<int32_t>(weights);
    bias[i] = at_run ? 0 : static_cast<int32_t>(random->Int(-5000, 5000));
    start[i] = static_cast<int32_t>(bias[i] - (x_zero - kernel.byte_offset) * weights);
    scale[i] = static_cast<float>(random->Uniform(0.2, 1.0) /
                                  (100.0 * std::sqrt(static_cast<double>(depth) * p.density + 1)));
    f32_bias[i] = Quarter(random, 4);
  }
  q.start = start.data();
  q.scale = scale.data();
  Guarded rows(QspmmRowsFloats(all_rows), true, nan);
  if (at_run) TakeRowsAtRun(row_weights, scale, kernel.byte_offset, x_zero, &q, &rows);
  if (p.has_bias) a.bias = f32_bias.data();
  a.act = p.act;

  a.weights = packed.groups.data();
  a.splits = std::min(p.splits, packed.groups[0].panels);
  std::vector<int32_t> bounds(static_cast<size_t>(p.groups * (a.splits + 1)));
  for (int32_t g = 0; g < p.groups; ++g) {
    SplitPanels(packed.groups[g], kernel.format, a.splits, bounds.data() + g * (a.splits + 1));
  }
  a.split_panels = bounds.data();
  a.by_rows = p.by_rows;
  a.by_blocks = p.by_blocks && SpmmHasSquares(kernel.format);

  Run(kernel.kernel, &q, {x.data(), p.has_residual ? r.data() : nullptr, y.data(), rows.data()},
      SpmmItems(a), QspmmScratch(q, kernel, p.block_depth));

  ++checks;
  const int64_t out_rows = static_cast<int64_t>(p.batch) * p.groups * out_planes;
  for (int64_t plane_row = 0; plane_row < out_rows; ++plane_row) {
    const int64_t image = plane_row / (p.groups * out_planes);
    const int64_t group = plane_row / out_planes % p.groups;
    const int64_t x_base = image * a.x_image + group * a.x_group;
    for (int64_t i = 0; i < a.y_row; ++i) {
      const int64_t at = plane_row * a.y_row + i;
      if (i >= p.columns) {
        if (at < y.size() && !std::isnan(y[at])) return Fail("wrote behind a row of Y");
        continue;
      }
      for (int b = 0; b < (p.f32_output ? 1 : 4); ++b) {
        const int64_t row = p.f32_output ? plane_row % out_planes : plane_row % out_planes * 4 + b;
        const bool exists = row < p.rows;
        const auto weight_row = static_cast<size_t>(group * p.rows + (exists ? row : 0));
        int64_t sum = exists ? bias[weight_row] : 0;
        for (int64_t k = 0; k < depth && exists; ++k) {
          const int64_t channel = k / taps;
          const int64_t offset = p.direct ? i : TapOffset(p.window, false, i, k % taps);
          if (offset < 0) continue;
          const int64_t x_at = x_base + channel / 4 * a.x_row + offset;
          sum += w[weight_row * static_cast<size_t>(depth) + static_cast<size_t>(k)] *
                 (Bytes(&x)[4 * x_at + channel % 4] - x_zero);
        }
        const float z = static_cast<float>(sum) * scale[weight_row];
        if (p.f32_output) {
          // The kernel rounds each of these steps, as f32 does.
          float want = z + (p.has_bias ? f32_bias[weight_row] : 0.0f);
          if (p.has_residual) want += r[plane_row * a.r_row + i];
          if (!Matches(p.act, y[at], want)) return Fail("a float differs");
          continue;
        }
        float want = std::nearbyint(Clamp(z, q.low - q.zero, q.high - q.zero));
        if (p.has_residual) {
          const int byte = Bytes(&r)[4 * (plane_row * a.r_row + i) + b];
          const float product = want * q.sum_scale;
          const float residual = static_cast<float>(byte - q.r_zero) * q.r_scale;
          want = std::nearbyint(
              Clamp(product + residual, q.out_low - q.out_zero, q.out_high - q.out_zero));
          if (!exists) continue;  // nobody reads it
          want += static_cast<float>(q.out_zero);
        } else {
          want += static_cast<float>(q.zero);
        }
        const int got = Bytes(&y)[4 * at + b];
        if (got == static_cast<int>(want)) continue;
        char text[160];
        std::snprintf(text, sizeof(text), "row %lld, column %lld: got %d, want %d of sum %lld",
                      static_cast<long long>(row), static_cast<long long>(i), got,
                      static_cast<int>(want), static_cast<long long>(sum));
        return Fail(text);
      }
    }
  }
  if (!p.f32_output && !p.has_residual && p.groups == 1) {
    RunThen(p, kernel, q, &x, &y, random);
  }
}

void TestWidths(const QspmmKernel& kernel, Random* random) {
  int number = static_cast<int>(random->Int(0, 1000));
  for (int max = 1; max <= kernel.max_vecs; ++max) {
    const int64_t widest = static_cast<int64_t>(max) * kernel.lanes;
    const int64_t columns[] = {1,          kernel.lanes - 1, kernel.lanes, kernel.lanes + 1,
                               widest - 1, widest,           widest + 8,   2 * widest + 1};
    for (const int64_t c : columns) {
      for (const double preferred : {1.0, static_cast<double>(max)}) {
        const Problem p = SomeProblem(number++, std::max<int64_t>(1, c), random);
        RunProblem(p, kernel, MakeTiling(p.columns, kernel.lanes, max, preferred), random);
      }
    }
  }
}

// Every tile of exactly n vectors with a full and a cut last one, one block and several.
void TestEveryTile(const QspmmKernel& kernel, Random* random) {
  for (int vecs = 1; vecs <= kernel.max_vecs; ++vecs) {
    for (const bool cut : {false, true}) {
      for (const int32_t block_depth : {5, 64}) {  // of squares: 16
        for (const bool direct : {false, true}) {
          for (const bool f32_output : {false, true}) {
            Problem p;
            p.rows = 11;
            p.channels = 57;
            p.direct = direct;
            p.columns = static_cast<int64_t>(vecs) * kernel.lanes - (cut ? 1 : 0);
            p.window.in[1] = p.window.out[1] = p.columns;
            p.block_depth = block_depth;
            p.f32_output = f32_output;
            p.has_bias = true;
            p.has_residual = f32_output || !direct;
            RunProblem(p, kernel, MakeTiling(p.columns, kernel.lanes, vecs, vecs), random);
          }
        }
      }
    }
  }
}

// Counts and ids at their 16-bit limits.
void TestDeep(const QspmmKernel& kernel, Random* random) {
  for (const bool direct : {false, true}) {
    for (const double density : {1.0, 0.02}) {
      Problem p;
      p.rows = 9;
      p.channels = 4 * 66000;
      p.direct = direct;
      p.columns = 3;
      p.window.in[1] = p.window.out[1] = 3;
      p.block_depth = 65535;
      p.density = density;
      // Not so deep where all weights are stored: sums stay below 2^31.
      if (density == 1.0) p.channels = 4 * 6600;
      RunProblem(p, kernel, MakeTiling(3, kernel.lanes, 1, 1), random);
    }
  }
}

}  // namespace
}  // namespace test
}  // namespace sparsert

int main() {
  using namespace sparsert;        // NOLINT
  using namespace sparsert::test;  // NOLINT
  Random random(21);
  const SpmmFormat formats[] = {SpmmFormat::kDense, SpmmFormat::kDense8, SpmmFormat::kPat4,
                                SpmmFormat::kCsr2,  SpmmFormat::kBsr4,   SpmmFormat::kBsr8,
                                SpmmFormat::kAny4,  SpmmFormat::kCsr4};
  const SpmmFormat squares[] = {SpmmFormat::kDense16, SpmmFormat::kBits16};
  int found = 0;
  for (const Isa isa : {Isa::kScalar, Isa::kAvx2, Isa::kAvx512Vnni, Isa::kNeon, Isa::kNeonDot}) {
    if (!IsaAvailable(isa)) continue;
    for (const SpmmFormat format : formats) {
      QspmmKernel kernel;
      const bool is_arm = isa == Isa::kNeon || isa == Isa::kNeonDot;
      if (is_arm && (format == SpmmFormat::kAny4 || format == SpmmFormat::kCsr4)) continue;
      if (!SelectQspmm(format, isa, &kernel) || kernel.kernel.isa != isa) {
        Fail("every format has a kernel on every instruction set");
        continue;
      }
      ++found;
      TestEveryTile(kernel, &random);
      TestWidths(kernel, &random);
      TestDeep(kernel, &random);
    }
  }
  for (const SpmmFormat format : squares) {
    QspmmKernel kernel;
    if (!IsaAvailable(Isa::kAmx) || !SelectQspmm(format, Isa::kAmx, &kernel)) {
      std::printf("skipped: no AMX for %s\n", SpmmFormatName(format));
      continue;
    }
    TestEveryTile(kernel, &random);
    TestWidths(kernel, &random);
    TestDeep(kernel, &random);
  }
  Expect(found >= 5, "the scalar kernels at least");
  return Finish("qspmm_test");
}
