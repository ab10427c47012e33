// rowconv over random planes and kernels, with and without the pool, against a double reference on
// every ISA.
#include "kernels/rowconv/rowconv.h"

#include <algorithm>

#include "planes_reference.h"

namespace sparsert {
namespace test {
namespace {

int64_t Planes(const RowconvArgs& a, int64_t channels) { return a.batch * channels; }

double Sum(const RowconvArgs& a, const float* x, int64_t channel, int64_t h, int64_t w) {
  double size = 0.0;
  return PlanesSum(a, 1, 1, x, channel, h, w, &size);
}

void TestRowconv(const Kernel& kernel, int number, Random* random) {
  static const int64_t kWidths[] = {1,  2,  3,  4,  5,  7,  8,  9,  12, 13, 15, 16,
                                    17, 26, 28, 31, 32, 33, 34, 47, 48, 49, 64, 65};
  RowconvArgs a;
  a.pool = number % 2 == 0;
  const bool square = random->Int(0, 3) != 0;
  a.kernel_h = square ? 3 + number / 2 % 2 * 2 : random->Int(1, 7);
  a.kernel_w = square ? a.kernel_h : random->Int(1, 7);
  a.batch = static_cast<int32_t>(random->Int(1, 3));
  a.channels = static_cast<int32_t>(random->Int(1, 11));
  a.in_channels = static_cast<int32_t>(random->Int(1, 4));
  a.out_w = kWidths[number / 4 % 24];
  a.out_h = random->Int(1, 12);
  if (a.pool) {
    a.out_w = std::max<int64_t>(2, a.out_w);
    a.out_h = std::max<int64_t>(2, a.out_h);
  }
  // Rows and columns of the padding before the plane, and behind it as many as are missing; the
  // last ones of the plane may be beyond every window.
  const int64_t most = random->Int(0, 9) == 0 ? 40 : 3;
  a.pad_h = random->Int(0, most);
  a.pad_w = random->Int(0, most);
  a.in_h = std::max<int64_t>(1, a.out_h + a.kernel_h - 1 - a.pad_h - random->Int(-2, most));
  a.in_w = std::max<int64_t>(1, a.out_w + a.kernel_w - 1 - a.pad_w - random->Int(-2, most));
  const int64_t rows = a.pool ? a.out_h / 2 : a.out_h;
  const int64_t columns = a.pool ? a.out_w / 2 : a.out_w;
  const int64_t plane = rows * columns;
  a.x_plane = a.in_h * a.in_w + random->Int(0, 3);
  a.x_image = a.x_plane * a.in_channels;
  a.y_plane = plane + random->Int(0, 17);
  a.y_image = a.y_plane * a.channels;
  char text[240];
  std::snprintf(text, sizeof(text),
                "%s%s: number %d, batch %d, %d to %d channels, kernel %lldx%lld, pad %lldx%lld, "
                "input %lldx%lld, output %lldx%lld",
                kernel.name, a.pool ? " with pool" : "", number, a.batch, a.in_channels, a.channels,
                static_cast<long long>(a.kernel_h), static_cast<long long>(a.kernel_w),
                static_cast<long long>(a.pad_h), static_cast<long long>(a.pad_w),
                static_cast<long long>(a.in_h), static_cast<long long>(a.in_w),
                static_cast<long long>(a.out_h), static_cast<long long>(a.out_w));
  context = text;
  const float nan = std::nanf("");
  const bool at_end = random->Int(0, 1) == 1;
  Guarded x(a.batch * a.x_image - (a.x_plane - a.in_h * a.in_w), at_end, nan);
  Guarded y(a.batch * a.y_image - (a.y_plane - plane), at_end, nan);
  for (int64_t p = 0; p < Planes(a, a.in_channels); ++p) {
    for (int64_t i = 0; i < a.in_h * a.in_w; ++i) x[p * a.x_plane + i] = Quarter(random, 2);
  }
  const int64_t taps = a.in_channels * a.kernel_h * a.kernel_w;
  const std::vector<float> weights = RandomMatrix(a.channels, taps, 0.9, Sparsity::kRandom, random);
  std::vector<float> bias(static_cast<size_t>(a.channels));
  for (float& b : bias) b = Quarter(random, 4);
  a.weights = weights.data();
  a.bias = number % 3 == 0 ? nullptr : bias.data();
  a.act = SomeActivation(number / 2);
  Run(kernel, &a, {x.data(), y.data()}, RowconvItems(a), RowconvScratch(a));

  CheckPlanes(a, rows, columns, &x, &y,
              [&](const float* in, int64_t c, int64_t h, int64_t w, float got, double* want) {
                *want = a.pool ? -HUGE_VAL : Sum(a, in, c, h, w);
                bool has_nan = false;  // root of a negative sum, say: any of the four may win
                for (int64_t k = 0; a.pool && k < 4; ++k) {
                  const double value = Activate(a.act, Sum(a, in, c, 2 * h + k / 2, 2 * w + k % 2));
                  has_nan |= std::isnan(value);
                  *want = std::max(*want, value);
                }
                if (has_nan) return true;
                return a.pool ? Near(got, *want, 1e-4, 1e-4) : Matches(a.act, got, *want);
              });
}

}  // namespace
}  // namespace test
}  // namespace sparsert

int main() {
  using namespace sparsert;
  using namespace sparsert::test;
  Random random(23);
  for (const Isa isa : Isas()) {
    Kernel kernel;
    const bool found = SelectRowconv(isa, &kernel);
    Expect(found && kernel.isa == isa, "rowconv has a kernel on every ISA");
    for (int number = 0; found && number < 600; ++number) TestRowconv(kernel, number, &random);
  }
  return Finish("rowconv_test");
}
