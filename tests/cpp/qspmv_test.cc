// qspmv in every format and instruction set against sums in 64 bits. Results must match to the bit.
#include "kernels/qspmv/qspmv.h"

#include "byte_products.h"
#include "plan/pack_spmv.h"

namespace sparsert {
namespace test {
namespace {

// qspmv: groups of vectors, in every format, all outputs.
void TestVectors(SpmvFormat format, Isa isa, Random* random) {
  Kernel kernel;
  int lanes = 0;
  int byte_offset = 0;
  if (!SelectQspmv(format, isa, &kernel, &lanes, &byte_offset) || kernel.isa != isa) {
    if (format == SpmvFormat::kPerm) return;  // not of every CPU
    return Fail("every format of vectors has a kernel on every instruction set");
  }
  const Allocator* allocator = DefaultAllocator();
  for (int number = 0; number < 120; ++number) {
    Problem p = SomeProblem(number, 1, random);
    p.groups = 1;
    p.direct = true;
    if (number == 0) p.channels = 4 * (kSpmvColBlock + 5);  // two blocks of columns
    context = std::string(kernel.name) + ": " + std::to_string(p.rows) + "x" +
              std::to_string(p.channels) + ", number " + std::to_string(number);
    const std::vector<int8_t> w = RandomBytes(p, 1, random);
    Csr csr(allocator);
    FillQuads(w, p.rows, p.channels, 1, &csr);
    PackedSpmv packed(allocator);
    const int64_t most = number % 3 == 0 ? 1 : SpmvGroup(format, isa);
    const auto group = static_cast<int32_t>(random->Int(1, most));
    if (most > 1) p.batch = static_cast<int32_t>(random->Int(1, 2 * most));
    Must(PackSpmv(csr, nullptr, format, lanes, &packed, true, group > 1));
    const int x_zero = static_cast<int>(random->Int(0, 255));
    QspmvArgs a;
    QspmmArgs& q = a.output;
    a.batch = p.batch;
    a.group = group;
    a.chunks = static_cast<int32_t>(std::min<int64_t>(packed.slices.slices, random->Int(1, 3)));
    a.x_row = Quads(p.channels);
    a.y_row = a.r_row = p.f32_output ? p.rows : Quads(p.rows);
    a.weights = packed.slices;
    q.f32_output = p.f32_output;
    q.zero = static_cast<int32_t>(random->Int(0, 255));
    q.low = static_cast<int32_t>(random->Int(0, q.zero));
    q.sum_scale = 0.75f;
    q.r_scale = 1.25f;
    q.r_zero = 100;
    q.out_zero = 90;
    q.out_low = 3;
    q.out_high = 250;
    Guarded x(p.batch * a.x_row, true, 0.0f);
    Guarded r(p.batch * a.r_row, true, 0.0f);
    Guarded y(p.batch * a.y_row, true, 0.0f);
    for (int64_t i = 0; i < 4 * x.size(); ++i) Bytes(&x)[i] = SomeByte(random);
    for (int64_t i = 0; i < r.size(); ++i) {
      for (int b = 0; b < 4 && !p.f32_output; ++b) Bytes(&r)[4 * i + b] = SomeByte(random);
      if (p.f32_output) r[i] = Quarter(random, 4);
    }
    std::vector<int32_t> start(static_cast<size_t>(p.rows));
    std::vector<float> scale(start.size());
    std::vector<float> bias(start.size());
    std::vector<int32_t> row_weights(start.size());
    const bool at_run = p.f32_output && number % 2 == 0;
    const int first = at_run ? 0 : 77;
    for (size_t row = 0; row < start.size(); ++row) {
      int64_t weights = 0;
      for (int64_t k = 0; k < p.channels; ++k) {
        weights += w[row * static_cast<size_t>(p.channels) + static_cast<size_t>(k)];
      }
      row_weights[row] = static_cast<int32_t>(weights);
      start[row] = static_cast<int32_t>(first - (x_zero - byte_offset) * weights);
      scale[row] = static_cast<float>(random->Uniform(0.2, 1.0) / (100.0 * std::sqrt(p.channels)));
      bias[row] = Quarter(random, 4);
    }
    q.start = start.data();
    q.scale = scale.data();
    Guarded rows(QspmmRowsFloats(p.rows), true, 0.0f);
    if (at_run) TakeRowsAtRun(row_weights, scale, byte_offset, x_zero, &q, &rows);
    if (p.has_bias) q.product.bias = bias.data();
    q.product.act = p.act;
    Run(kernel, &a, {x.data(), p.has_residual ? r.data() : nullptr, y.data(), rows.data()},
        QspmvItems(a), 0);
    ++checks;
    for (int64_t n = 0; n < p.batch; ++n) {
      for (int64_t row = 0; row < 4 * Quads(p.rows); ++row) {
        const bool exists = row < p.rows;
        const auto i = static_cast<size_t>(exists ? row : 0);
        int64_t sum = first;
        for (int64_t k = 0; k < p.channels; ++k) {
          sum += w[i * static_cast<size_t>(p.channels) + static_cast<size_t>(k)] *
                 (Bytes(&x)[4 * n * a.x_row + k] - x_zero);
        }
        const float z = static_cast<float>(sum) * scale[i];
        if (p.f32_output) {
          if (!exists) continue;
          float want = z + (p.has_bias ? bias[i] : 0.0f);
          if (p.has_residual) want += r[n * a.r_row + row];
          if (!Matches(p.act, y[n * a.y_row + row], want)) return Fail("a float differs");
          continue;
        }
        float want = std::nearbyint(Clamp(z, q.low - q.zero, q.high - q.zero));
        int zero = q.zero;
        if (p.has_residual) {
          const float product = want * q.sum_scale;
          const int byte = Bytes(&r)[4 * n * a.r_row + row];
          const float residual = static_cast<float>(byte - q.r_zero) * q.r_scale;
          zero = q.out_zero;
          want = std::nearbyint(Clamp(product + residual, q.out_low - zero, q.out_high - zero));
        }
        if (!exists) want = 0.0f;
        if (Bytes(&y)[4 * n * a.y_row + row] != static_cast<int>(want) + zero) {
          return Fail("a byte differs");
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
  Random random(22);
  for (const Isa isa : {Isa::kScalar, Isa::kAvx2, Isa::kAvx512Vnni, Isa::kNeon, Isa::kNeonDot}) {
    if (!IsaAvailable(isa)) continue;
    TestVectors(SpmvFormat::kDense, isa, &random);
    TestVectors(SpmvFormat::kSell, isa, &random);
    TestVectors(SpmvFormat::kBits, isa, &random);
    if (isa == Isa::kAvx512Vnni) TestVectors(SpmvFormat::kPerm, isa, &random);
  }
  return Finish("qspmv_test");
}
