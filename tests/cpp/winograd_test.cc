// winograd over random planes, paddings and blockings, against a double reference on every ISA.
#include "kernels/winograd/winograd.h"

#include "plan/pack_winograd.h"
#include "product_harness.h"

namespace sparsert {
namespace test {
namespace {

struct Layer {
  int64_t batch, channels, rows;
  Window window;
};

Window PlaneWindow(int64_t h, int64_t w, int64_t pad_top, int64_t pad_left, int64_t pad_bottom,
                   int64_t pad_right) {
  Window window;
  window.spatial_rank = 2;
  const int64_t in[2] = {h, w};
  const int64_t begin[2] = {pad_top, pad_left};
  const int64_t end[2] = {pad_bottom, pad_right};
  for (int d = 0; d < 2; ++d) {
    window.in[d] = in[d];
    window.kernel[d] = 3;
    window.stride[d] = 1;
    window.dilation[d] = 1;
    window.pad_begin[d] = begin[d];
    window.out[d] = in[d] + begin[d] + end[d] - 2;
  }
  return window;
}

Window SomeWindow(int number, Random* random) {
  static const int64_t kWidths[] = {1,  2,  3,  4,  5,  7,  8,  9,  13, 14, 15, 16, 17,
                                    28, 31, 32, 33, 34, 35, 56, 63, 64, 65, 66, 67, 101};
  for (;;) {
    const int64_t most = random->Int(0, 9) == 0 ? 20 : 2;
    const Window w = PlaneWindow(random->Int(1, 12), kWidths[number % 26], random->Int(0, most),
                                 random->Int(0, most), random->Int(0, most), random->Int(0, most));
    if (w.out[0] > 0 && w.out[1] > 0) return w;
  }
}

// The sum of one output element; `at`: its place in the plane.
double Reference(const Layer& l, const float* x, int64_t x_plane, const float* filter, int64_t at) {
  double sum = 0.0;
  for (int64_t tap = 0; tap < 9; ++tap) {
    const int64_t offset = TapOffset(l.window, false, at, tap);
    if (offset < 0) continue;
    for (int64_t c = 0; c < l.channels; ++c) {
      sum += static_cast<double>(filter[c * 9 + tap]) * x[c * x_plane + offset];
    }
  }
  return sum;
}

// A blocking that the planner might choose, or an odd one.
WinogradArgs SomeArgs(const WinogradKernel& kernel, const Layer& l, Random* random) {
  const Window& w = l.window;
  WinogradArgs a;
  a.batch = static_cast<int32_t>(l.batch);
  a.pad_h = w.pad_begin[0];
  a.pad_w = w.pad_begin[1];
  a.in_h = w.in[0];
  a.in_w = w.in[1];
  a.out_h = w.out[0];
  a.out_w = w.out[1];
  const int64_t patches = l.batch * ((a.out_h + 1) / 2) * ((a.out_w + 1) / 2);
  a.vecs = static_cast<int32_t>((patches + kernel.lanes - 1) / kernel.lanes);
  a.blocks = static_cast<int32_t>(random->Int(1, a.vecs < 5 ? a.vecs : 5));
  a.block_vecs = (a.vecs + a.blocks - 1) / a.blocks;
  a.weights.rows = static_cast<int32_t>(l.rows);
  a.weights.depth = static_cast<int32_t>(l.channels);
  a.weights.panel_rows = kernel.panel_rows;
  a.weights.group_panels = static_cast<int32_t>(random->Int(1, 3));
  a.weights.block_depth = static_cast<int32_t>(random->Int(1, l.channels));
  a.splits = static_cast<int32_t>(random->Int(1, a.weights.groups()));
  a.x_plane = w.in[0] * w.in[1] + random->Int(0, 9);
  a.x_image = a.x_plane * l.channels;
  a.y_plane = w.out[0] * w.out[1] + random->Int(0, 17);
  a.y_image = a.y_plane * l.rows;
  return a;
}

std::string Describe(const WinogradKernel& kernel, const Layer& l, const WinogradArgs& a) {
  char text[240];
  std::snprintf(text, sizeof(text),
                "%s: %lld images, %lld -> %lld channels, %lldx%lld -> %lldx%lld padded by %lld "
                "%lld, %d vectors in %d blocks, %d splits, groups of %d panels, slabs of %d",
                kernel.kernel.name, static_cast<long long>(l.batch),
                static_cast<long long>(l.channels), static_cast<long long>(l.rows),
                static_cast<long long>(a.in_h), static_cast<long long>(a.in_w),
                static_cast<long long>(a.out_h), static_cast<long long>(a.out_w),
                static_cast<long long>(a.pad_h), static_cast<long long>(a.pad_w), a.vecs, a.blocks,
                a.splits, a.weights.group_panels, a.weights.block_depth);
  return text;
}

void TestLayer(const WinogradKernel& kernel, const Layer& l, int number, Random* random) {
  WinogradArgs a = SomeArgs(kernel, l, random);
  context = Describe(kernel, l, a);
  const int64_t plane = a.out_h * a.out_w;
  const bool has_residual = number % 3 == 0;
  const bool in_place = has_residual && random->Int(0, 1) == 1;  // Y is R
  a.r_plane = in_place ? a.y_plane : plane;
  a.r_image = a.r_plane * l.rows;
  const float nan = std::nanf("");
  const bool at_end = random->Int(0, 1) == 1;
  Guarded x(l.batch * a.x_image - (a.x_plane - a.in_h * a.in_w), at_end, nan);
  Guarded r(l.batch * a.r_image, at_end, nan);
  Guarded y(l.batch * a.y_image - (a.y_plane - plane), at_end, nan);
  for (int64_t i = 0; i < x.size(); ++i) {
    if (i % a.x_plane < a.in_h * a.in_w) x[i] = Quarter(random, 2);
  }
  for (int64_t i = 0; i < r.size(); ++i) r[i] = Quarter(random, 2);
  const std::vector<float> filters =
      RandomMatrix(l.rows, l.channels * 9, 0.95, Sparsity::kRandom, random);
  std::vector<float> bias(static_cast<size_t>(l.rows));
  for (float& b : bias) b = Quarter(random, 4);
  PackedWinograd packed(DefaultAllocator());
  Must(PackWinograd(filters.data(), a.weights, &packed));
  a.weights = packed.weights;
  a.bias = number % 2 == 0 ? bias.data() : nullptr;
  a.act = SomeActivation(number);
  if (in_place) {
    for (int64_t i = 0; i < y.size(); ++i) {
      if (i % a.y_plane < plane) y[i] = r[i];
    }
  }
  float* residual = in_place ? y.data() : r.data();
  Run(kernel.kernel, &a, {x.data(), has_residual ? residual : nullptr, y.data()}, WinogradItems(a),
      LayOutWinogradScratch(a, kernel.lanes).bytes);

  ++checks;
  for (int64_t i = 0; i < y.size(); ++i) {
    const int64_t image = i / a.y_image;
    const int64_t row = i % a.y_image / a.y_plane;
    const int64_t at = i % a.y_plane;
    if (at >= plane) {
      if (!std::isnan(y[i])) return Fail("wrote behind a plane of Y");
      continue;
    }
    double sum = Reference(l, x.data() + image * a.x_image, a.x_plane,
                           filters.data() + row * l.channels * 9, at);
    if (a.bias != nullptr) sum += a.bias[row];
    if (has_residual) sum += r[image * a.r_image + row * a.r_plane + at];
    if (Matches(a.act, y[i], sum)) continue;
    char text[160];
    std::snprintf(text, sizeof(text), "image %lld, row %lld, column %lld: got %.9g, want f(%.9g)",
                  static_cast<long long>(image), static_cast<long long>(row),
                  static_cast<long long>(at), static_cast<double>(y[i]), sum);
    return Fail(text);
  }
}

// Weights and inputs as in a network: the largest error is at most that of a plain sum.
void TestError(const WinogradKernel& kernel, Random* random) {
  const Layer l = {1, 96, 20, PlaneWindow(13, 22, 1, 1, 1, 1)};
  WinogradArgs a = SomeArgs(kernel, l, random);
  context = Describe(kernel, l, a);
  std::vector<float> x(static_cast<size_t>(a.x_image));
  std::vector<float> y(static_cast<size_t>(a.y_image));
  std::vector<float> filters(static_cast<size_t>(l.rows * l.channels * 9));
  for (float& value : x) value = static_cast<float>(random->Uniform(0, 1));
  for (float& value : filters) value = static_cast<float>(random->Uniform(-0.1, 0.1));
  PackedWinograd packed(DefaultAllocator());
  Must(PackWinograd(filters.data(), a.weights, &packed));
  a.weights = packed.weights;
  Run(kernel.kernel, &a, {x.data(), nullptr, y.data()}, WinogradItems(a),
      LayOutWinogradScratch(a, kernel.lanes).bytes);
  double worst = 0.0;
  double worst_plain = 0.0;
  for (int64_t row = 0; row < l.rows; ++row) {
    const float* filter = filters.data() + row * l.channels * 9;
    for (int64_t at = 0; at < a.out_h * a.out_w; ++at) {
      const double want = Reference(l, x.data(), a.x_plane, filter, at);
      float plain = 0.0f;
      for (int64_t c = 0; c < l.channels; ++c) {
        for (int64_t tap = 0; tap < 9; ++tap) {
          const int64_t offset = TapOffset(l.window, false, at, tap);
          if (offset >= 0) plain += filter[c * 9 + tap] * x[c * a.x_plane + offset];
        }
      }
      worst = std::fmax(worst, std::fabs(y[row * a.y_plane + at] - want));
      worst_plain = std::fmax(worst_plain, std::fabs(plain - want));
    }
  }
  Expect(worst_plain > 0.0 && worst <= worst_plain, "the error is at most that of a plain sum");
}

}  // namespace
}  // namespace test
}  // namespace sparsert

int main() {
  using namespace sparsert;        // NOLINT
  using namespace sparsert::test;  // NOLINT
  static const int64_t kCounts[] = {1, 2, 3, 4, 5, 7, 8, 9, 13, 16, 17, 31, 40};
  Random random(33);
  for (const Isa isa : Isas()) {
    WinogradKernel kernel;
    const bool found = SelectWinograd(isa, &kernel);
    Expect(found && kernel.kernel.isa == isa, "there is a kernel on every ISA");
    for (int number = 0; found && number < 1000; ++number) {
      const Layer layer = {random.Int(1, 3), kCounts[random.Int(0, 12)], kCounts[random.Int(0, 12)],
                           SomeWindow(number, &random)};
      TestLayer(kernel, layer, number, &random);
    }
    if (found) TestError(kernel, &random);
  }
  return Finish("winograd_test");
}
