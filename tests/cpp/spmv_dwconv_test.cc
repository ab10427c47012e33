// spmv in every format and dwconv over random windows, against double references on every ISA.
#include "kernels/dwconv/dwconv.h"
#include "kernels/spmv/spmv.h"
#include "plan/build_taps.h"
#include "plan/pack_spmv.h"
#include "product_harness.h"

namespace sparsert {
namespace test {
namespace {

void TestSpmv(const Kernel& kernel, SpmvFormat format, int lanes, int64_t rows, int64_t cols,
              double density, Sparsity sparsity, int number, Random* random) {
  char text[200];
  std::snprintf(text, sizeof(text), "%s: %lldx%lld, density %.2f, sparsity %d, number %d",
                kernel.name, static_cast<long long>(rows), static_cast<long long>(cols), density,
                static_cast<int>(sparsity), number);
  context = text;
  const Allocator* allocator = DefaultAllocator();
  const std::vector<float> w = RandomMatrix(rows, cols, density, sparsity, random);
  std::vector<float> bias(static_cast<size_t>(rows));
  for (float& b : bias) b = Quarter(random, 4);
  const bool has_bias = number % 2 == 0;
  const bool has_residual = number % 3 == 0;
  Csr csr(allocator);
  FillCsr(w, rows, cols, &csr);
  PackedSpmv packed(allocator);
  const int64_t most = number % 3 == 0 ? 1 : SpmvGroup(format, kernel.isa);
  const auto group = static_cast<int32_t>(random->Int(1, most));
  Must(PackSpmv(csr, has_bias ? bias.data() : nullptr, format, lanes, &packed, false, group > 1));

  SpmvArgs a;
  a.batch = static_cast<int32_t>(random->Int(1, most > 1 ? 2 * most : 4));
  a.group = group;
  a.chunks = static_cast<int32_t>(random->Int(1, packed.slices.slices));
  a.x_row = cols;
  a.r_row = rows + 1;
  a.y_row = rows + random->Int(0, 2);
  a.weights = packed.slices;
  a.act = SomeActivation(number);
  const bool at_end = random->Int(0, 1) == 1;
  const float nan = std::nanf("");
  Guarded x(a.batch * a.x_row, at_end, nan);
  Guarded r(a.batch * a.r_row - 1, at_end, nan);
  Guarded y(a.batch * a.y_row - (a.y_row - rows), at_end, nan);
  for (int64_t i = 0; i < x.size(); ++i) x[i] = Quarter(random, 2);
  for (int64_t i = 0; i < r.size(); ++i) r[i] = Quarter(random, 2);
  Run(kernel, &a, {x.data(), has_residual ? r.data() : nullptr, y.data()}, SpmvItems(a), 0);

  ++checks;
  for (int64_t n = 0; n < a.batch; ++n) {
    for (int64_t row = 0; row < a.y_row; ++row) {
      const int64_t at = n * a.y_row + row;
      if (row >= rows) {
        if (at < y.size() && !std::isnan(y[at])) return Fail("wrote behind a vector of Y");
        continue;
      }
      double sum = has_bias ? bias[static_cast<size_t>(row)] : 0.0;
      for (int64_t k = 0; k < cols; ++k) {
        sum += static_cast<double>(w[static_cast<size_t>(row * cols + k)]) * x[n * a.x_row + k];
      }
      if (has_residual) sum += r[n * a.r_row + row];
      if (Matches(a.act, y[at], sum)) continue;
      std::snprintf(text, sizeof(text), "row %lld: got %.9g, want f(%.9g) = %.9g",
                    static_cast<long long>(row), static_cast<double>(y[at]), sum,
                    Activate(a.act, sum));
      return Fail(text);
    }
  }
}

// A window that the kernel may walk row by row: square of 3 or 5, or any.
Window RowWindow(int number, bool is_small, Random* random) {
  static const int64_t kSizes[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 17, 31};
  static const int64_t kWidths[] = {1,  2,  3,  5,  7,  8,  9,  12, 14, 15, 16, 17,
                                    23, 28, 31, 32, 33, 34, 40, 56, 64, 65, 100};
  for (;;) {
    Window w;
    w.spatial_rank = 2;
    const int64_t stride = number / 2 % 2 + 1;
    for (int d = 0; d < 2; ++d) {
      w.in[d] = d == 0 ? random->Int(1, 20) : kWidths[number / 4 % 23];
      w.kernel[d] = is_small ? 3 + number % 2 * 2 : kSizes[random->Int(0, 13)];
      w.stride[d] = stride;
      w.dilation[d] = is_small || stride > 1 || random->Int(0, 2) > 0 ? 1 : random->Int(1, 5);
      const int64_t kernel = (w.kernel[d] - 1) * w.dilation[d] + 1;
      const int64_t most = random->Int(0, 9) == 0 ? 40 : 3;
      w.pad_begin[d] = random->Int(0, most);
      const int64_t reach = w.in[d] + w.pad_begin[d] + random->Int(0, most) - kernel;
      w.out[d] = reach < 0 ? 0 : reach / stride + 1;
    }
    if (w.out[0] > 0 && w.out[1] > 0) return w;
  }
}

enum class Walk { kTaps, kSmallRows, kRows };

void TestDwconv(const Kernel& kernel, int lanes, Walk walk, int number, Random* random) {
  static const int64_t kWidths[] = {1, 2, 5, 7, 15, 16, 17, 31, 33, 49, 64, 65, 100};
  const bool by_rows = walk != Walk::kTaps;
  const Window w = by_rows ? RowWindow(number, walk == Walk::kSmallRows, random)
                           : RandomWindow(random, false, kWidths[number % 13]);
  const int64_t taps = w.kernel[0] * w.kernel[1];
  const int64_t plane = w.in[0] * w.in[1];
  DwconvArgs a;
  a.batch = static_cast<int32_t>(random->Int(1, 2));
  a.multiplier = static_cast<int32_t>(random->Int(1, 3));
  a.channels = static_cast<int32_t>(random->Int(1, 5)) * a.multiplier;
  a.columns = w.out[0] * w.out[1];
  const int max = static_cast<int>(random->Int(1, kDwconvMaxVecs));
  const Tiling tiling = MakeTiling(a.columns, lanes, max, random->Int(0, 1) == 0 ? max : 1.0);
  a.tiles = tiling.tiles;
  a.vecs = tiling.vecs;
  Bump bump(DefaultAllocator());
  if (by_rows) {
    a.by_rows = true;
    a.kernel_h = w.kernel[0];
    a.kernel_w = w.kernel[1];
    a.stride_h = w.stride[0];
    a.stride_w = w.stride[1];
    a.dilation_h = w.dilation[0];
    a.dilation_w = w.dilation[1];
    a.bands = static_cast<int32_t>(random->Int(1, w.out[0] < 3 ? w.out[0] : 3));
    a.pad_h = w.pad_begin[0];
    a.pad_w = w.pad_begin[1];
    a.in_h = w.in[0];
    a.in_w = w.in[1];
    a.out_h = w.out[0];
    a.out_w = w.out[1];
  } else {
    Must(BuildTaps(w, false, PlaneLayout(w, false), tiling, &bump, &a.taps));
  }
  const int64_t in_channels = a.channels / a.multiplier;
  a.x_plane = plane;
  a.x_image = plane * in_channels;
  a.y_plane = a.columns + random->Int(0, 17);
  a.y_image = a.y_plane * a.channels;
  const bool has_residual = number % 3 == 0;
  const bool in_place = has_residual && random->Int(0, 1) == 1;  // Y is R
  a.r_plane = in_place ? a.y_plane : a.columns;
  a.r_image = a.r_plane * a.channels;
  char text[200];
  std::snprintf(
      text, sizeof(text),
      "%s%s%s: number %d, batch %d, %d channels (times %d), kernel %lldx%lld, %lld columns "
      "in %d tiles of %d vectors",
      kernel.name, by_rows ? " by rows" : "", in_place ? " in place" : "", number, a.batch,
      a.channels, a.multiplier, static_cast<long long>(w.kernel[0]),
      static_cast<long long>(w.kernel[1]), static_cast<long long>(a.columns), tiling.tiles,
      tiling.tile_vecs);
  context = text;
  const float nan = std::nanf("");
  const bool at_end = random->Int(0, 1) == 1;
  Guarded x(a.batch * a.x_image, at_end, nan);
  Guarded r(a.batch * a.r_image, at_end, nan);
  Guarded y(a.batch * a.y_image - (a.y_plane - a.columns), at_end, nan);
  for (int64_t i = 0; i < x.size(); ++i) x[i] = Quarter(random, 2);
  for (int64_t i = 0; i < r.size(); ++i) r[i] = Quarter(random, 2);
  const std::vector<float> weights = RandomMatrix(a.channels, taps, 0.9, Sparsity::kRandom, random);
  std::vector<float> bias(static_cast<size_t>(a.channels));
  for (float& b : bias) b = Quarter(random, 4);
  a.weights = weights.data();
  a.bias = number % 2 == 0 ? bias.data() : nullptr;
  a.act = SomeActivation(number);
  if (in_place) {
    for (int64_t i = 0; i < y.size(); ++i) {
      if (i % a.y_plane < a.columns) y[i] = r[i];
    }
  }
  float* residual = in_place ? y.data() : r.data();
  Run(kernel, &a, {x.data(), has_residual ? residual : nullptr, y.data()}, DwconvItems(a), 0);

  ++checks;
  for (int64_t image = 0; image < a.batch; ++image) {
    for (int64_t c = 0; c < a.channels; ++c) {
      for (int64_t i = 0; i < a.y_plane; ++i) {
        const int64_t at = image * a.y_image + c * a.y_plane + i;
        if (i >= a.columns) {
          if (at < y.size() && !std::isnan(y[at])) return Fail("wrote behind a plane of Y");
          continue;
        }
        double sum = a.bias == nullptr ? 0.0 : a.bias[c];
        for (int64_t k = 0; k < taps; ++k) {
          const int64_t offset = TapOffset(w, false, i, k);
          if (offset < 0) continue;
          sum += static_cast<double>(weights[static_cast<size_t>(c * taps + k)]) *
                 x[image * a.x_image + c / a.multiplier * plane + offset];
        }
        if (has_residual) sum += r[image * a.r_image + c * a.r_plane + i];
        if (Matches(a.act, y[at], sum)) continue;
        std::snprintf(text, sizeof(text), "channel %lld, column %lld: got %.9g, want f(%.9g)",
                      static_cast<long long>(c), static_cast<long long>(i),
                      static_cast<double>(y[at]), sum);
        return Fail(text);
      }
    }
  }
}

void TestAllSpmv(Isa isa, Random* random) {
  static const int64_t kSizes[] = {1, 3, 4, 5, 8, 15, 16, 17, 31, 33, 64, 97};
  for (int f = 0; f < static_cast<int>(SpmvFormat::kCount); ++f) {
    const auto format = static_cast<SpmvFormat>(f);
    Kernel kernel;
    int lanes = 0;
    const bool found = SelectSpmv(format, isa, &kernel, &lanes);
    if (format == SpmvFormat::kPerm && isa != Isa::kAvx512) continue;
    Expect(found && kernel.isa == isa, "every format has a kernel on every ISA");
    if (!found) continue;
    int number = 0;
    for (const int64_t rows : kSizes) {
      for (const int64_t cols : kSizes) {
        for (const double density : {1.0, 0.5, 0.1}) {
          const auto sparsity = static_cast<Sparsity>(random->Int(0, 5));
          TestSpmv(kernel, format, lanes, rows, cols, density, sparsity, number++, random);
        }
      }
    }
    // Ids past 16 bits.
    for (const int64_t cols : {65535, 65536, 65537, 131073}) {
      TestSpmv(kernel, format, lanes, 5, cols, 0.01, Sparsity::kRandom, number++, random);
      TestSpmv(kernel, format, lanes, 5, cols, 0.01, Sparsity::kOne, number++, random);
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
  for (const Isa isa : Isas()) {
    TestAllSpmv(isa, &random);
    Kernel kernel;
    int lanes = 0;
    const bool found = SelectDwconv(isa, &kernel, &lanes);
    Expect(found && kernel.isa == isa, "depthwise has a kernel on every ISA");
    for (int number = 0; found && number < 400; ++number) {
      TestDwconv(kernel, lanes, Walk::kTaps, number, &random);
    }
    for (int number = 0; found && number < 1200; ++number) {
      TestDwconv(kernel, lanes, Walk::kSmallRows, number, &random);
      TestDwconv(kernel, lanes, Walk::kRows, number, &random);
    }
  }
  return Finish("spmv_dwconv_test");
}
