// GridSample, RoiAlign, the columns of deformable convolutions, Resize by axis and MaxPool with
// indices, on every instruction set against sums in double.
#include <algorithm>

#include "base/array.h"
#include "base/fault.h"
#include "base/platform.h"
#include "kernel_harness.h"
#include "kernels/pool/pool.h"
#include "kernels/resize/resize.h"
#include "kernels/sample/sample.h"

namespace sparsert {
namespace test {
namespace {

using Dims = std::vector<int64_t>;

double Cubic(double distance, double a) {
  const double d = std::fabs(distance);
  if (d <= 1) return (a + 2) * d * d * d - (a + 3) * d * d + 1;
  return d < 2 ? a * d * d * d - 5 * a * d * d + 8 * a * d - 4 * a : 0;
}

double Mirror(double at, double low, double high) {
  if (high <= low) return low;
  while (at < low || at > high) at = at < low ? 2 * low - at : 2 * high - at;
  return at;
}

// The element that a GridSample reads for index i; -1: none.
int64_t Padded(GridPadding padding, bool corners, int64_t i, int64_t size) {
  if (i >= 0 && i < size) return i;
  if (padding == GridPadding::kZeros) return -1;
  if (padding == GridPadding::kBorder) return std::min(std::max<int64_t>(i, 0), size - 1);
  const double n = static_cast<double>(size);
  const double at = Mirror(static_cast<double>(i), corners ? 0 : -0.5, corners ? n - 1 : n - 0.5);
  return std::min(static_cast<int64_t>(std::max(at, 0.0)), size - 1);
}

// Along one axis: pairs of elements and weights.
std::vector<std::pair<int64_t, double>> Taps(ResizeMode mode, GridPadding padding, bool corners,
                                             double value, int64_t size) {
  const double n = static_cast<double>(size);
  double at = corners ? (value + 1) / 2 * (n - 1) : ((value + 1) * n - 1) / 2;
  if (mode == ResizeMode::kNearest) at = std::nearbyint(at);
  const double low = corners ? 0 : -0.5;
  const double high = corners ? n - 1 : n - 0.5;
  if (at < low || at > high) {
    if (padding == GridPadding::kBorder && mode != ResizeMode::kCubic)
      at = std::min(std::max(at, 0.0), n - 1);
    if (padding == GridPadding::kReflection) at = Mirror(at, low, high);
  }
  std::vector<std::pair<int64_t, double>> taps;
  const int64_t first = static_cast<int64_t>(std::floor(at));
  if (mode == ResizeMode::kNearest) {
    taps.emplace_back(static_cast<int64_t>(at), 1.0);
  } else {
    const int64_t reach = mode == ResizeMode::kLinear ? 0 : 1;
    for (int64_t i = first - reach; i <= first + 1 + reach; ++i) {
      const double d = static_cast<double>(i) - at;
      taps.emplace_back(i, reach == 0 ? 1 - std::fabs(d) : Cubic(d, -0.75));
    }
  }
  for (auto& tap : taps) tap.first = Padded(padding, corners, tap.first, size);
  return taps;
}

void CheckGridSample(const Dims& x_dims, const Dims& out, ResizeMode mode, GridPadding padding,
                     bool corners) {
  const size_t axes = x_dims.size() - 2;
  Dims grid_dims = {x_dims[0]};
  Dims y_dims = {x_dims[0], x_dims[1]};
  for (const int64_t size : out) {
    grid_dims.push_back(size);
    y_dims.push_back(size);
  }
  grid_dims.push_back(static_cast<int64_t>(axes));
  Random random(7);
  Tensor x(DType::kF32, x_dims, 5, 3);
  Tensor grid(DType::kF32, grid_dims);
  x.FillUniform(&random, -2, 2);
  grid.FillUniform(&random, -2.3, 2.3);
  std::vector<double> want;
  Tensor y_shape(DType::kF32, y_dims);
  const int64_t points = y_shape.desc.plane();
  for (int64_t i = 0; i < y_shape.elements(); ++i) {
    const int64_t image = i / points / x_dims[1];
    const int64_t channel = i / points;
    std::vector<std::pair<int64_t, double>> all = {{0, 1.0}};
    for (size_t a = 0; a < axes; ++a) {
      const auto at = (image * points + i % points) * static_cast<int64_t>(axes) +
                      static_cast<int64_t>(axes - 1 - a);
      std::vector<std::pair<int64_t, double>> more;
      for (const auto& before : all) {
        for (const auto& tap :
             Taps(mode, padding, corners, static_cast<double>(grid.F(at)), x_dims[2 + a])) {
          const bool outside = before.first < 0 || tap.first < 0;
          more.emplace_back(outside ? -1 : before.first * x_dims[2 + a] + tap.first,
                            before.second * tap.second);
        }
      }
      all = more;
    }
    double sum = 0;
    for (const auto& tap : all) {
      if (tap.first >= 0) {
        sum += tap.second * static_cast<double>(x.F(channel * x.desc.plane() + tap.first));
      }
    }
    want.push_back(sum);
  }
  for (const Isa isa : Isas()) {
    Tensor y(DType::kF32, y_dims, 2, 1);
    context = "grid sample mode " + std::to_string(static_cast<int>(mode)) + " padding " +
              std::to_string(static_cast<int>(padding)) + " isa " +
              std::to_string(static_cast<int>(isa));
    const GridSampleArgs args = MakeGridSampleArgs(mode, padding, corners, x.desc, y.desc);
    Kernel kernel;
    Expect(SelectGridSample(args, isa, &kernel) && kernel.isa == isa, "no kernel");
    Run(kernel, &args, {x.data(), grid.data(), y.data()}, GridSampleItems(args),
        SampleScratchBytes());
    ExpectNear(y, want, 2e-5, 4e-5);
  }
}

void TestGridSample() {
  const std::vector<std::pair<Dims, Dims>> shapes = {{{2, 3, 5, 7}, {4, 9}},
                                                     {{1, 1, 1, 1}, {1, 1}},
                                                     {{1, 2, 6, 1}, {3, 43}},
                                                     {{1, 5, 11}, {65}},
                                                     {{2, 2, 3, 4, 5}, {2, 3, 13}}};
  for (const auto& s : shapes) {
    for (int m = 0; m < static_cast<int>(ResizeMode::kCount); ++m) {
      if (m == static_cast<int>(ResizeMode::kCubic) && s.second.size() > 2) continue;
      for (int p = 0; p < static_cast<int>(GridPadding::kCount); ++p) {
        for (const bool corners : {false, true}) {
          CheckGridSample(s.first, s.second, static_cast<ResizeMode>(m),
                          static_cast<GridPadding>(p), corners);
        }
      }
    }
  }
  // What is no number, or not finite, reads nothing; an infinite neighbour of weight 0 adds
  // nothing.
  for (const Isa isa : Isas()) {
    context = "grid sample of what is no number";
    Tensor x(DType::kF32, {1, 1, 2, 2});
    Tensor grid(DType::kF32, {1, 1, 5, 2});
    Tensor y(DType::kF32, {1, 1, 1, 5});
    x.F(0) = INFINITY;
    for (int64_t i = 1; i < 4; ++i) x.F(i) = static_cast<float>(i);
    const float places[] = {NAN, 0, INFINITY, 0, -INFINITY, 0, 1e30f, -1e30f, 0.5f, 0.5f};
    for (int64_t i = 0; i < 10; ++i) grid.F(i) = places[i];
    const GridSampleArgs args =
        MakeGridSampleArgs(ResizeMode::kLinear, GridPadding::kZeros, false, x.desc, y.desc);
    Kernel kernel;
    SelectGridSample(args, isa, &kernel);
    Run(kernel, &args, {x.data(), grid.data(), y.data()}, 1, SampleScratchBytes());
    ExpectNear(y, {0, 0, 0, 0, 3}, 0, 0);
  }
}

double Bilinear(const float* plane, const Dims& size, double y, double x) {
  double sum = 0;
  const int64_t top = static_cast<int64_t>(std::floor(y));
  const int64_t left = static_cast<int64_t>(std::floor(x));
  for (int64_t h = top; h <= top + 1; ++h) {
    for (int64_t w = left; w <= left + 1; ++w) {
      if (h < 0 || h >= size[0] || w < 0 || w >= size[1]) continue;
      sum += (1 - std::fabs(y - static_cast<double>(h))) *
             (1 - std::fabs(x - static_cast<double>(w))) *
             static_cast<double>(plane[h * size[1] + w]);
    }
  }
  return sum;
}

void CheckRoiAlign(const Dims& out, RoiMode mode, bool half_pixel, int64_t samples) {
  Random random(3);
  const Dims size = {9, 7};
  Tensor x(DType::kF32, {2, 3, 9, 7}, 4, 2);
  x.FillUniform(&random, -1, 3);
  const float boxes[] = {0, 0, 6, 8, 1.5f, 2.25f, 3, 9.5f, -3, -2, 2, 2, 5, 5, 4, 4, 2, 3, 30, 12};
  constexpr int64_t kBoxes = 5;
  const int64_t images[kBoxes] = {1, 0, 1, 1, 0};
  const float scale = 0.75f;
  std::vector<double> want;
  for (int64_t r = 0; r < kBoxes; ++r) {
    double start[2], bin[2];
    int64_t n[2];
    for (int a = 0; a < 2; ++a) {
      const double offset = half_pixel ? 0.5 : 0;
      start[a] = static_cast<double>(boxes[r * 4 + 1 - a]) * 0.75 - offset;
      double length = static_cast<double>(boxes[r * 4 + 3 - a]) * 0.75 - offset - start[a];
      if (!half_pixel) length = std::max(length, 1.0);
      bin[a] = length / static_cast<double>(out[static_cast<size_t>(a)]);
      n[a] = samples > 0 ? samples : std::max<int64_t>(0, static_cast<int64_t>(std::ceil(bin[a])));
    }
    for (int64_t c = 0; c < 3; ++c) {
      const float* plane = static_cast<const float*>(x.data()) + images[r] * x.desc.strides[0] +
                           c * x.desc.strides[1];
      for (int64_t o = 0; o < out[0] * out[1]; ++o) {
        double total = 0;
        double most = 0;
        for (int64_t s = 0; s < n[0] * n[1]; ++s) {
          double at[2];
          const int64_t step[2] = {s / n[1], s % n[1]};
          const int64_t place[2] = {o / out[1], o % out[1]};
          bool inside = true;
          for (int a = 0; a < 2; ++a) {
            at[a] = start[a] + (static_cast<double>(place[a]) +
                                (static_cast<double>(step[a]) + 0.5) / static_cast<double>(n[a])) *
                                   bin[a];
            const double last = static_cast<double>(size[static_cast<size_t>(a)]);
            inside = inside && at[a] >= -1 && at[a] <= last;
            at[a] = std::min(std::max(at[a], 0.0), last - 1);
          }
          if (!inside) {
            if (s == 0) most = 0;
            most = std::max(most, 0.0);
            continue;
          }
          total += Bilinear(plane, size, at[0], at[1]);
          double largest = -INFINITY;
          for (int corner = 0; corner < 4; ++corner) {
            const int64_t h = static_cast<int64_t>(at[0]) + corner / 2;
            const int64_t w = static_cast<int64_t>(at[1]) + corner % 2;
            const bool there = h < size[0] && w < size[1];
            const double weight = (1 - std::fabs(at[0] - static_cast<double>(h))) *
                                  (1 - std::fabs(at[1] - static_cast<double>(w)));
            const double value = there ? static_cast<double>(plane[h * size[1] + w]) : 0;
            largest = std::max(largest, weight * value);
          }
          most = s == 0 ? largest : std::max(most, largest);
        }
        const double count = static_cast<double>(std::max<int64_t>(1, n[0] * n[1]));
        want.push_back(mode == RoiMode::kMax ? most : total / count);
      }
    }
  }
  for (const Isa isa : Isas()) {
    context = "roi align mode " + std::to_string(static_cast<int>(mode)) + " samples " +
              std::to_string(samples) + " isa " + std::to_string(static_cast<int>(isa));
    Tensor y(DType::kF32, {kBoxes, 3, out[0], out[1]}, 1);
    const RoiAlignArgs args = MakeRoiAlignArgs(mode, half_pixel, samples, scale, x.desc, y.desc);
    Kernel kernel;
    Expect(SelectRoiAlign(args, isa, &kernel) && kernel.isa == isa, "no kernel");
    IndexFault fault;
    Run(kernel, &args,
        {x.data(), const_cast<float*>(boxes), const_cast<int64_t*>(images), y.data(), &fault},
        RoiAlignItems(args), SampleScratchBytes());
    ExpectNear(y, want, 1e-5, 2e-5);
    Expect(!fault.reported, "a fault of good indices");
    for (const int64_t bad : {int64_t{-1}, int64_t{2}}) {
      const int64_t wrong[kBoxes] = {1, 0, bad, 1, 0};
      IndexFault found;
      Run(kernel, &args,
          {x.data(), const_cast<float*>(boxes), const_cast<int64_t*>(wrong), y.data(), &found},
          RoiAlignItems(args), SampleScratchBytes());
      Expect(found.reported && found.index == bad && found.low == 0 && found.size == 2, "fault");
    }
  }
}

void CheckDeform(const Dims& size, const Dims& out, int64_t groups, bool masked, int64_t stride,
                 int64_t dilation, int64_t pad) {
  Random random(5);
  const int64_t kernel_size[2] = {2, 3};
  constexpr int64_t kTaps = 6;
  Tensor x(DType::kF32, {2, 4, size[0], size[1]}, 3, 5);
  Tensor offsets(DType::kF32, {2, groups * kTaps * 2, out[0], out[1]});
  Tensor mask(DType::kF32, {2, groups * kTaps, out[0], out[1]});
  x.FillUniform(&random, -1, 1);
  offsets.FillUniform(&random, -2.5, 2.5);
  mask.FillUniform(&random, 0, 1);
  const int64_t points = out[0] * out[1];
  std::vector<double> want;
  for (int64_t i = 0; i < 2 * 4 * kTaps * points; ++i) {
    const int64_t p = i % points;
    const int64_t k = i / points % kTaps;
    const int64_t c = i / points / kTaps % 4;
    const int64_t n = i / points / kTaps / 4;
    const int64_t set = (n * groups + c / (4 / groups)) * kTaps + k;
    const double h = static_cast<double>(p / out[1] * stride + k / 3 * dilation - pad) +
                     static_cast<double>(offsets.F(set * 2 * points + p));
    const double w = static_cast<double>(p % out[1] * stride + k % 3 * dilation - pad) +
                     static_cast<double>(offsets.F((set * 2 + 1) * points + p));
    const float* plane =
        static_cast<const float*>(x.data()) + n * x.desc.strides[0] + c * x.desc.strides[1];
    const double weight = masked ? static_cast<double>(mask.F(set * points + p)) : 1.0;
    want.push_back(Bilinear(plane, size, h, w) * weight);
  }
  for (const Isa isa : Isas()) {
    context = "deform isa " + std::to_string(static_cast<int>(isa));
    Tensor y(DType::kF32, {2, 4 * kTaps, out[0], out[1]}, 2, 1);
    DeformArgs args = {};
    args.planes = {4 / groups,        x.desc.strides[0], x.desc.strides[1],
                   y.desc.strides[0], y.desc.strides[1], points};
    args.images = 2;
    args.groups = groups;
    for (int a = 0; a < 2; ++a) {
      args.in[a] = size[static_cast<size_t>(a)];
      args.out[a] = out[static_cast<size_t>(a)];
      args.kernel[a] = kernel_size[a];
      args.stride[a] = stride;
      args.dilation[a] = dilation;
      args.pad[a] = pad;
    }
    Kernel kernel;
    Expect(SelectDeform(args, isa, &kernel) && kernel.isa == isa, "no kernel");
    Run(kernel, &args, {x.data(), offsets.data(), masked ? mask.data() : nullptr, y.data()},
        DeformItems(args), SampleScratchBytes());
    ExpectNear(y, want, 1e-5, 2e-5);
  }
}

// One dimension of a Resize, against the sum over all elements.
void CheckResizeAxis(int64_t outer, int64_t in, int64_t out, int64_t inner, ResizeSpec spec) {
  Random random(9);
  Tensor x(DType::kF32, {outer, in, inner});
  x.FillUniform(&random, -2, 2);
  spec.scale[0] = static_cast<float>(out) / static_cast<float>(in);
  const double scale = static_cast<double>(spec.scale[0]);
  const double shrink = spec.antialias ? std::min(1.0, scale) : 1.0;
  std::vector<double> want(static_cast<size_t>(outer * out * inner));
  const double last = static_cast<double>(in - 1);
  for (int64_t i = 0; i < out; ++i) {
    const double at = static_cast<double>(i);
    double center = (at + 0.5) / scale - 0.5;
    bool outside = false;
    if (spec.coordinates == CoordinateMode::kTfCropAndResize) {
      const double begin = static_cast<double>(spec.begin[0]);
      const double end = static_cast<double>(spec.end[0]);
      center = out == 1 ? 0.5 * (begin + end) * last
                        : begin * last + at * (end - begin) * last / static_cast<double>(out - 1);
      outside = center < 0 || center > last;
    } else if (in == out) {
      center = at;
    }
    std::vector<double> weights(static_cast<size_t>(in));
    double total = 0;
    for (int64_t t = -40 * in; t < 40 * in && !outside; ++t) {
      const double d = (static_cast<double>(t) - center) * shrink;
      const double w = spec.mode == ResizeMode::kCubic ? Cubic(d, static_cast<double>(spec.cubic_a))
                                                       : std::max(0.0, 1 - std::fabs(d));
      if (spec.exclude_outside && (t < 0 || t >= in)) continue;
      weights[static_cast<size_t>(std::min(std::max<int64_t>(t, 0), in - 1))] += w;
      total += w;
    }
    for (int64_t o = 0; o < outer; ++o) {
      for (int64_t c = 0; c < inner; ++c) {
        double sum = outside ? static_cast<double>(spec.extrapolation) : 0.0;
        for (int64_t t = 0; t < in && !outside; ++t) {
          sum += weights[static_cast<size_t>(t)] / total *
                 static_cast<double>(x.F((o * in + t) * inner + c));
        }
        want[static_cast<size_t>((o * out + i) * inner + c)] = sum;
      }
    }
  }
  Array<int32_t> tables(DefaultAllocator());
  ResizeAxisArgs args;
  Expect(MakeResizeAxisArgs(spec, outer, in, out, inner, 0, &tables, &args).ok(), "arguments");
  for (const Isa isa : Isas()) {
    context = "resize axis " + std::to_string(in) + " to " + std::to_string(out) + " inner " +
              std::to_string(inner) + " isa " + std::to_string(static_cast<int>(isa));
    Tensor y(DType::kF32, {outer, out, inner});
    Kernel kernel;
    Expect(SelectResizeAxis(args, isa, &kernel) && kernel.isa == isa, "no kernel");
    Run(kernel, &args, {x.data(), y.data()}, ResizeAxisItems(args), 0);
    // Places are computed in float.
    ExpectNear(y, want, 1e-5, 4e-5);
  }
}

void TestResizeAxis() {
  const int64_t sizes[][2] = {{1, 1}, {1, 7}, {7, 1}, {5, 12}, {13, 5}, {40, 37}, {17, 3}, {6, 6}};
  for (const auto& size : sizes) {
    for (const int64_t inner : {int64_t{1}, int64_t{3}, int64_t{37}}) {
      for (const ResizeMode mode : {ResizeMode::kLinear, ResizeMode::kCubic}) {
        for (int flags = 0; flags < 4; ++flags) {
          ResizeSpec spec;
          spec.mode = mode;
          spec.coordinates = CoordinateMode::kHalfPixel;
          spec.antialias = (flags & 1) != 0;
          spec.exclude_outside = (flags & 2) != 0;
          spec.cubic_a = flags == 0 ? -0.75f : -0.5f;
          CheckResizeAxis(2, size[0], size[1], inner, spec);
        }
        ResizeSpec crop;
        crop.mode = mode;
        crop.coordinates = CoordinateMode::kTfCropAndResize;
        crop.begin[0] = -0.21f;
        crop.end[0] = 0.83f;
        crop.extrapolation = 7.5f;
        CheckResizeAxis(3, size[0], size[1], inner, crop);
      }
    }
  }
}

void CheckPoolIndices(const Dims& size, int64_t kernel_size, int64_t stride, int64_t dilation,
                      int64_t pad, bool column_major) {
  Random random(2);
  context = "pool with indices";
  Tensor x(DType::kF32, {2, 3, size[0], size[1]}, 4, 1);
  for (int64_t i = 0; i < x.elements(); ++i) x.F(i) = static_cast<float>(random.Int(-3, 3));
  PoolWindow w = {};
  for (int a = 0; a < 2; ++a) {
    w.kernel[a] = kernel_size;
    w.stride[a] = stride;
    w.dilation[a] = dilation;
    w.pad_begin[a] = w.pad_end[a] = pad;
    w.in[a] = size[static_cast<size_t>(a)];
    w.out[a] = (w.in[a] + 2 * pad - (kernel_size - 1) * dilation - 1) / stride + 1;
  }
  Tensor y(DType::kF32, {2, 3, w.out[0], w.out[1]});
  Tensor indices(DType::kI64, {2, 3, w.out[0], w.out[1]});
  const PoolIndicesArgs args = MakePoolIndicesArgs(x.desc, y.desc, w, column_major);
  Kernel kernel;
  Expect(SelectPoolIndices(args, Isa::kScalar, &kernel), "no kernel");
  Run(kernel, &args, {x.data(), y.data(), indices.data()}, PoolIndicesItems(args), 0);
  std::vector<double> want;
  for (int64_t i = 0; i < y.elements(); ++i) {
    const int64_t plane = i / (w.out[0] * w.out[1]);
    const int64_t o = i % (w.out[0] * w.out[1]);
    double most = -INFINITY;
    int64_t place = 0;
    for (int64_t t = 0; t < kernel_size * kernel_size; ++t) {
      const int64_t h = o / w.out[1] * stride - pad + t / kernel_size * dilation;
      const int64_t v = o % w.out[1] * stride - pad + t % kernel_size * dilation;
      if (h < 0 || h >= size[0] || v < 0 || v >= size[1]) continue;
      const double value = static_cast<double>(x.F((plane * size[0] + h) * size[1] + v));
      if (value <= most) continue;
      most = value;
      place = plane * size[0] * size[1] + (column_major ? v * size[0] + h : h * size[1] + v);
    }
    want.push_back(most);
    Expect(indices.At<int64_t>(i) == place, "index");
  }
  ExpectNear(y, want, 0, 0);
  indices.ExpectCanaries();
}

}  // namespace
}  // namespace test
}  // namespace sparsert

int main() {
  using namespace sparsert::test;
  using sparsert::RoiMode;
  TestGridSample();
  for (const RoiMode mode : {RoiMode::kAvg, RoiMode::kMax}) {
    for (const bool half_pixel : {false, true}) {
      for (const int64_t samples : {int64_t{0}, int64_t{1}, int64_t{3}}) {
        CheckRoiAlign({2, 3}, mode, half_pixel, samples);
        CheckRoiAlign({7, 11}, mode, half_pixel, samples);
      }
    }
  }
  for (const bool masked : {false, true}) {
    CheckDeform({6, 7}, {5, 5}, 1, masked, 1, 1, 0);
    CheckDeform({6, 7}, {7, 7}, 2, masked, 1, 1, 1);
    CheckDeform({9, 23}, {5, 12}, 4, masked, 2, 1, 1);
    CheckDeform({5, 5}, {3, 1}, 2, masked, 1, 2, 0);
  }
  TestResizeAxis();
  for (const bool column_major : {false, true}) {
    CheckPoolIndices({6, 8}, 2, 2, 1, 0, column_major);
    CheckPoolIndices({7, 5}, 3, 1, 1, 1, column_major);
    CheckPoolIndices({9, 11}, 3, 2, 2, 2, column_major);
    CheckPoolIndices({1, 1}, 1, 1, 1, 0, column_major);
  }
  return Finish("kernels_sample_test");
}
