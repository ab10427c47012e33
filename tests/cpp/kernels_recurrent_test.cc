// Recurrent against a double reference on every ISA: cells, formats, lengths, states, tails.
#include "kernels/recurrent/recurrent.h"

#include <algorithm>
#include <limits>

#include "plan/build_taps.h"
#include "plan/pack_spmm.h"
#include "plan/pack_spmv.h"
#include "product_harness.h"

namespace sparsert {
namespace test {
namespace {

struct Sizes {
  int64_t steps, batch, hidden;
};

// What a case has besides its sizes.
struct Options {
  Cell cell;
  bool reset_first;  // GRU
  bool reverse, lengths, states, peephole;
  bool usual;  // sigmoid and tanh
  float clip;
  bool couples;
  SpmvFormat format;
  int64_t group;     // 0: one after the other; else by `columns_format`
  int64_t together;  // steps that are projected at a time; 0: no projection
  SpmmFormat columns_format;
  double density;
};

// A packed matrix and its plain image.
struct Matrix {
  Matrix(int64_t row_count, int64_t col_count, const Options& o, bool has_bias, Isa isa,
         Random* random, StateProduct* product, int64_t steps = 1)
      : rows(row_count), cols(col_count), packed(DefaultAllocator()), columns(DefaultAllocator()) {
    values = RandomMatrix(rows, cols, o.density, Sparsity::kRandom, random);
    bias.assign(static_cast<size_t>(rows), 0.0f);
    if (has_bias) {
      for (float& b : bias) b = static_cast<float>(random->Uniform(-1, 1));
    }
    Csr csr(DefaultAllocator());
    FillCsr(values, rows, cols, &csr);
    if (o.group != 0) {
      PackColumns(csr, o, steps * o.group, isa, random, product);
      return;
    }
    Kernel kernel;
    int lanes = 0;
    Expect(SelectSpmv(o.format, isa, &kernel, &lanes), "no product");
    Must(PackSpmv(csr, has_bias ? bias.data() : nullptr, o.format, lanes, &packed));
    product->run = kernel.run;
    product->vector.weights = packed.slices;
    product->vector.chunks = static_cast<int32_t>(random->Int(1, packed.slices.slices));
  }
  void PackColumns(const Csr& csr, const Options& o, int64_t width, Isa isa, Random* random,
                   StateProduct* product) {
    SpmmKernel kernel;
    Expect(SelectSpmm(o.columns_format, isa, &kernel), "no product");
    const auto depth = static_cast<int32_t>(random->Int(1, cols));
    Must(PackSpmm(csr, 1, 1, o.columns_format, true, depth, 16, &columns));
    const Tiling tiling = MakeTiling(width, kernel.lanes, kernel.max_vecs, kernel.max_vecs);
    const PackedMatrix& m = columns.groups[0];
    spmm.tiles = tiling.tiles;
    spmm.vecs = tiling.vecs;
    spmm.tile_vecs = tiling.tile_vecs;
    spmm.columns = width;
    spmm.direct = true;
    spmm.x_row = spmm.y_row = ColumnRow(width);
    spmm.weights = columns.groups.data();
    spmm.splits = static_cast<int32_t>(random->Int(1, m.panels));
    bounds.resize(static_cast<size_t>(spmm.splits) + 1);
    SplitPanels(m, o.columns_format, spmm.splits, bounds.data());
    spmm.split_panels = bounds.data();
    spmm.bias = bias.data();
    product->run = kernel.kernel.run;
    product->columns = &spmm;
    product->columns_scratch = SpmmScratch(spmm, kernel.lanes, m.block_depth);
  }
  static int64_t ColumnRow(int64_t width) { return (width + 31) / 16 * 16; }
  std::vector<double> Times(const std::vector<double>& x) const {
    std::vector<double> y(bias.begin(), bias.end());
    for (int64_t i = 0; i < rows * cols; ++i) {
      y[static_cast<size_t>(i / cols)] +=
          static_cast<double>(values[static_cast<size_t>(i)]) * x[static_cast<size_t>(i % cols)];
    }
    return y;
  }
  int64_t rows, cols;
  std::vector<float> values, bias;
  PackedSpmv packed;
  PackedSpmm columns;
  SpmmArgs spmm;
  std::vector<int32_t> bounds;
};

void CheckRecurrent(const Sizes& z, const Options& o, Isa isa) {
  char text[200];
  std::snprintf(text, sizeof(text),
                "recurrent cell %d, %lld steps of %lld x %lld, reset first %d, reverse %d, lengths "
                "%d, group %lld, format %d, density %.1f, isa %d",
                static_cast<int>(o.cell), static_cast<long long>(z.steps),
                static_cast<long long>(z.batch), static_cast<long long>(z.hidden), o.reset_first,
                o.reverse, o.lengths, static_cast<long long>(o.group),
                static_cast<int>(o.group == 0 ? static_cast<int>(o.format)
                                              : static_cast<int>(o.columns_format)),
                o.density, static_cast<int>(isa));
  context = text;
  Random random(static_cast<uint64_t>(z.steps + 7 * z.batch + 31 * z.hidden));
  const size_t hidden = static_cast<size_t>(z.hidden);
  const int64_t gates = GatesOf(o.cell);
  const bool is_lstm = o.cell == Cell::kLstm;
  const int64_t width = o.together == 0 ? gates * z.hidden : z.hidden + 2;
  Tensor x(DType::kF32, {z.steps, z.batch, width});
  Tensor h0(DType::kF32, {z.batch, z.hidden});
  Tensor c0(DType::kF32, {z.batch, z.hidden});
  Tensor lengths(DType::kI32, {z.batch});
  Tensor peephole(DType::kF32, {3 * z.hidden});
  Tensor y(DType::kF32, {z.steps, z.batch, z.hidden});
  Tensor last_h(DType::kF32, {z.batch, z.hidden});
  Tensor last_c(DType::kF32, {z.batch, z.hidden});
  for (Tensor* t : {&x, &h0, &c0, &peephole}) t->FillUniform(&random, -1, 1);
  for (int64_t n = 0; n < z.batch; ++n) {
    lengths.At<int32_t>(n) = static_cast<int32_t>(random.Int(-1, z.steps + 1));
  }

  RecurrentArgs args;
  args.cell = o.cell;
  args.reverse = o.reverse;
  args.steps = z.steps;
  args.batch = z.batch;
  args.hidden = z.hidden;
  args.clip = o.clip;
  args.couples = o.couples;
  args.group = o.group;
  args.column_row = Matrix::ColumnRow(o.group);
  args.f = {o.usual ? UnaryFn::kSigmoid : UnaryFn::kHardSigmoid, 0.3f, 0.4f};
  args.g = {o.usual ? UnaryFn::kTanh : UnaryFn::kSoftsign, 0.0f, 0.0f};
  args.h = {o.usual ? UnaryFn::kTanh : UnaryFn::kScaledTanh, 0.8f, 0.6f};
  if (o.peephole) args.peephole = &peephole.F(0);
  const int64_t rows = (gates - (o.reset_first ? 1 : 0)) * z.hidden;
  const Matrix state(rows, z.hidden, o, o.states, isa, &random, &args.state);
  StateProduct unused;
  const Matrix candidate(z.hidden, z.hidden, o, false, isa, &random,
                         o.reset_first ? &args.candidate : &unused);
  const Matrix projection(gates * z.hidden, width, o, true, isa, &random,
                          o.together != 0 ? &args.projection : &unused,
                          std::max<int64_t>(1, o.together));
  if (o.together != 0) {
    args.width = width;
    args.chunk_steps = o.together;
    args.projection_row = Matrix::ColumnRow(o.together * o.group);
  }
  Kernel kernel;
  Expect(SelectRecurrent(args, isa, &kernel) && kernel.isa == isa, "no kernel");
  Run(kernel, &args,
      {x.data(), o.states ? h0.data() : nullptr, o.states ? c0.data() : nullptr,
       o.lengths ? lengths.data() : nullptr, y.data(), last_h.data(),
       is_lstm ? last_c.data() : nullptr},
      RecurrentItems(args), RecurrentScratch(args));

  std::vector<double> want_y(static_cast<size_t>(y.elements()), 0.0);
  std::vector<double> want_h, want_c;
  const auto clip = [&](double v) {
    const double limit = static_cast<double>(o.clip);
    return std::fmin(limit, std::fmax(-limit, v));
  };
  for (int64_t n = 0; n < z.batch; ++n) {
    std::vector<double> h(hidden), c(hidden);
    for (size_t j = 0; j < hidden && o.states; ++j) {
      h[j] = static_cast<double>(h0.F(n * z.hidden + static_cast<int64_t>(j)));
      c[j] = static_cast<double>(c0.F(n * z.hidden + static_cast<int64_t>(j)));
    }
    int64_t length = o.lengths ? lengths.At<int32_t>(n) : z.steps;
    if (length > z.steps) length = z.steps;
    if (o.lengths && length <= 0) h = c = std::vector<double>(hidden, 0.0);
    for (int64_t step = 0; step < length; ++step) {
      const int64_t t = o.reverse ? length - 1 - step : step;
      const int64_t row = t * z.batch + n;
      std::vector<double> inputs;
      for (int64_t i = 0; i < width; ++i) {
        inputs.push_back(static_cast<double>(x.F(row * width + i)));
      }
      if (o.together != 0) inputs = projection.Times(inputs);
      const auto input = [&](int64_t gate, size_t j) {
        const size_t at = static_cast<size_t>(gate) * hidden + j;
        return inputs[at];
      };
      const std::vector<double> product = state.Times(h);
      const auto sum = [&](int64_t gate, size_t j) {
        return input(gate, j) + product[static_cast<size_t>(gate) * hidden + j];
      };
      std::vector<double> reset_state(hidden);
      for (size_t j = 0; j < hidden && o.reset_first; ++j) {
        reset_state[j] = h[j] * Activate(args.f, clip(sum(1, j)));
      }
      const std::vector<double> after = candidate.Times(reset_state);
      for (size_t j = 0; j < hidden; ++j) {
        if (o.cell == Cell::kRnn) {
          h[j] = Activate(args.f, clip(sum(0, j)));
        } else if (o.cell == Cell::kGru) {
          const double update = Activate(args.f, clip(sum(0, j)));
          const double last = o.reset_first
                                  ? after[j]
                                  : Activate(args.f, clip(sum(1, j))) * product[2 * hidden + j];
          h[j] = update * h[j] + (1 - update) * Activate(args.g, clip(input(2, j) + last));
        } else {
          const auto peep = [&](size_t gate) {
            return o.peephole
                       ? static_cast<double>(peephole.F(static_cast<int64_t>(gate * hidden + j))) *
                             c[j]
                       : 0.0;
          };
          const double in = Activate(args.f, clip(sum(0, j) + peep(0)));
          const double forget = o.couples ? 1 - in : Activate(args.f, clip(sum(2, j) + peep(2)));
          c[j] = forget * c[j] + in * Activate(args.g, clip(sum(3, j)));
          h[j] = Activate(args.f, clip(sum(1, j) + peep(1))) * Activate(args.h, c[j]);
        }
        want_y[static_cast<size_t>(row) * hidden + j] = h[j];
      }
    }
    want_h.insert(want_h.end(), h.begin(), h.end());
    want_c.insert(want_c.end(), c.begin(), c.end());
  }
  ExpectNear(y, want_y, 2e-5, 5e-6);
  ExpectNear(last_h, want_h, 2e-5, 5e-6);
  if (is_lstm) ExpectNear(last_c, want_c, 2e-5, 5e-6);
}

void TestRecurrent() {
  const Sizes sizes[] = {{1, 1, 1}, {5, 3, 7},  {3, 1, 16},  {4, 2, 33}, {2, 5, 8},
                         {0, 2, 3}, {3, 16, 5}, {4, 37, 18}, {2, 0, 4}};
  const float infinity = std::numeric_limits<float>::infinity();
  for (const Isa isa : Isas()) {
    for (const Sizes& z : sizes) {
      for (int number = 0; number < 64; ++number) {
        Options o = {};
        o.cell = static_cast<Cell>(number % 3);
        o.reset_first = o.cell == Cell::kGru && number % 2 == 0;
        o.reverse = (number & 1) != 0;
        o.lengths = (number & 2) != 0;
        o.states = (number & 4) != 0;
        o.usual = (number & 8) != 0;
        o.peephole = o.cell == Cell::kLstm && (number & 16) != 0;
        o.clip = (number & 32) != 0 ? 0.4f : infinity;
        o.format = number / 3 % 2 == 0   ? SpmvFormat::kDense
                   : number / 6 % 2 == 0 ? SpmvFormat::kSell
                                         : SpmvFormat::kBsr8;
        o.couples = o.cell == Cell::kLstm && number % 7 < 3;
        if (number % 4 != 0) o.group = number % 4 == 1 ? z.batch + 1 : 16 * (number % 4 - 1);
        if (o.group != 0 && number % 3 != 0) o.together = 1 + number % 5;
        o.columns_format = static_cast<SpmmFormat>(number % kFloatFormats);
        SpmmKernel product;
        if (!SelectSpmm(o.columns_format, isa, &product)) o.columns_format = SpmmFormat::kCsr2;
        o.density = number % 5 == 0 ? 0.0 : number % 5 == 1 ? 1.0 : 0.2;
        CheckRecurrent(z, o, isa);
      }
    }
  }
}

}  // namespace
}  // namespace test
}  // namespace sparsert

int main() {
  sparsert::test::TestRecurrent();
  return sparsert::test::Finish("kernels_recurrent_test");
}
