// stem and wstem over random planes, kernels and strides, with and without the pool, against a
// double reference.
#include "kernels/stem/stem.h"

#include <algorithm>
#include <limits>

#include "kernels/wstem/wstem.h"
#include "planes_reference.h"

namespace sparsert {
namespace test {
namespace {

enum class Numbers { kQuarters, kFloats, kInfiniteInputs, kInfiniteWeights };

struct Planes {
  StemArgs a;
  bool patches;  // for wstem
  Numbers numbers;
  std::vector<float> weights, bias, packed;
};

double Sum(const StemArgs& a, const float* x, int64_t channel, int64_t h, int64_t w, double* size) {
  return PlanesSum(a, a.stride_h, a.stride_w, x, channel, h, w, size);
}

Planes RandomPlanes(bool patches, int number, Random* random) {
  static const int64_t kWidths[] = {1, 2, 3, 7, 8, 15, 16, 17, 31, 32, 33, 40, 48, 49};
  static const int64_t kPatchWidths[] = {1, 2, 3, 16, 17, 31, 32, 33, 49, 65, 96, 112, 129, 224};
  Planes p;
  StemArgs& a = p.a;
  p.patches = patches;
  p.numbers = static_cast<Numbers>(std::max<int64_t>(0, random->Int(-4, 3)));
  a.pool = number % 2 == 0;
  a.batch = static_cast<int32_t>(random->Int(1, 3));
  a.channels = static_cast<int32_t>(random->Int(1, 70));
  a.in_channels = static_cast<int32_t>(random->Int(1, 4));
  const bool square = random->Int(0, 1) == 0;
  a.kernel_h = square ? 7 : random->Int(1, 8);
  a.kernel_w = square ? 7 : number % 50 == 1 ? kStemMaxKernel : random->Int(1, 8);
  a.stride_h = random->Int(1, 3);
  a.stride_w = random->Int(1, 2);
  if (patches) a.kernel_h = a.kernel_w = kWstemKernel;
  if (patches) a.stride_h = a.stride_w = 2;
  const int64_t* widths = patches ? kPatchWidths : kWidths;
  a.out_w = widths[number / 2 % 14];
  a.out_h = random->Int(1, 17);
  const int64_t most = random->Int(0, 9) == 0 ? 40 : 3;
  a.pad_h = random->Int(0, most);
  a.pad_w = random->Int(0, most);
  if (p.numbers == Numbers::kInfiniteWeights) a.pad_h = a.pad_w = 0;  // would give NaN
  // Rows and columns that are missing behind the plane, or lie beyond every window.
  const int64_t missing = p.numbers == Numbers::kInfiniteWeights ? 0 : most;
  a.in_h = std::max<int64_t>(
      1, (a.out_h - 1) * a.stride_h + a.kernel_h - a.pad_h - random->Int(-2, missing));
  a.in_w = std::max<int64_t>(
      1, (a.out_w - 1) * a.stride_w + a.kernel_w - a.pad_w - random->Int(-2, missing));
  a.pooled_h = std::max<int64_t>(1, (a.out_h + 1) / 2 - random->Int(0, 1));
  a.pooled_w = std::max<int64_t>(1, (a.out_w + 1) / 2 - random->Int(0, 1));
  a.bands = static_cast<int32_t>(random->Int(1, StemPairs(a)));
  a.x_plane = a.in_h * a.in_w + random->Int(0, 3);
  a.x_image = a.x_plane * a.in_channels;
  a.y_plane = (a.pool ? a.pooled_h * a.pooled_w : a.out_h * a.out_w) + random->Int(0, 17);
  a.y_image = a.y_plane * a.channels;
  const bool finite = p.numbers == Numbers::kQuarters || p.numbers == Numbers::kFloats;
  static const UnaryFn kOrdered[] = {UnaryFn::kNone, UnaryFn::kRelu, UnaryFn::kClip};
  const UnaryFn fn = kOrdered[number / 2 % 3];
  const int any = a.pool ? static_cast<int>(fn) : number / 2;
  a.act = SomeActivation(finite ? any : static_cast<int>(UnaryFn::kNone));
  return p;
}

void FillNumbers(Planes* p, int number, float* x, Random* random) {
  StemArgs& a = p->a;
  const auto value = [&](int limit) {
    return p->numbers == Numbers::kFloats ? static_cast<float>(random->Uniform(-limit, limit))
                                          : Quarter(random, limit);
  };
  for (int64_t plane = 0; plane < a.batch * a.in_channels; ++plane) {
    for (int64_t i = 0; i < a.in_h * a.in_w; ++i) x[plane * a.x_plane + i] = value(2);
  }
  p->weights.resize(static_cast<size_t>(a.channels * a.in_channels * a.kernel_h * a.kernel_w));
  for (float& w : p->weights) w = value(2);
  p->bias.resize(static_cast<size_t>(a.channels));
  for (float& b : p->bias) b = value(4);
  const float infinity = std::numeric_limits<float>::infinity();
  if (p->numbers == Numbers::kInfiniteInputs) {
    for (float& w : p->weights) w = std::fabs(w) + 0.25f;  // not NaN, whose maximum depends
    x[random->Int(0, a.in_h * a.in_w - 1)] = infinity;
  }
  if (p->numbers == Numbers::kInfiniteWeights) {
    for (int64_t plane = 0; plane < a.batch * a.in_channels; ++plane) {
      for (int64_t i = 0; i < a.in_h * a.in_w; ++i) x[plane * a.x_plane + i] = 0.5f;
    }
    p->weights[static_cast<size_t>(random->Int(0, static_cast<int64_t>(p->weights.size()) - 1))] =
        infinity;
  }
  a.weights = p->weights.data();
  a.bias = number % 3 == 0 ? nullptr : p->bias.data();
#if defined(SRT_X86)  // see kHasWstem
  if (p->patches) {
    p->packed.resize(static_cast<size_t>(WstemPackedFloats(a)));
    a.packed = PackWstem(a, p->packed.data()) ? p->packed.data() : nullptr;
    return;
  }
#endif
  p->packed.resize(static_cast<size_t>(StemPackedFloats(a)));
  PackStem(a, p->packed.data());
  a.packed = p->packed.data();
}

void TestStem(const Kernel& kernel, bool patches, int number, Random* random) {
  Planes planes = RandomPlanes(patches, number, random);
  StemArgs& a = planes.a;
  char text[280];
  std::snprintf(
      text, sizeof(text),
      "%s%s: number %d, numbers %d, batch %d, %d to %d channels, kernel %dx%d, stride %dx%d, pad "
      "%dx%d, input %dx%d, output %dx%d, pooled %dx%d, %d bands",
      kernel.name, a.pool ? " with pool" : "", number, static_cast<int>(planes.numbers), a.batch,
      a.in_channels, a.channels, static_cast<int>(a.kernel_h), static_cast<int>(a.kernel_w),
      static_cast<int>(a.stride_h), static_cast<int>(a.stride_w), static_cast<int>(a.pad_h),
      static_cast<int>(a.pad_w), static_cast<int>(a.in_h), static_cast<int>(a.in_w),
      static_cast<int>(a.out_h), static_cast<int>(a.out_w), static_cast<int>(a.pooled_h),
      static_cast<int>(a.pooled_w), a.bands);
  context = text;
  const int64_t rows = a.pool ? a.pooled_h : a.out_h;
  const int64_t columns = a.pool ? a.pooled_w : a.out_w;
  const int64_t plane = rows * columns;
  const float nan = std::nanf("");
  const bool at_end = random->Int(0, 1) == 1;
  Guarded x(a.batch * a.x_image - (a.x_plane - a.in_h * a.in_w), at_end, nan);
  Guarded y(a.batch * a.y_image - (a.y_plane - plane), at_end, nan);
  FillNumbers(&planes, number, x.data(), random);
#if defined(SRT_X86)
  const size_t scratch = patches ? WstemScratch(a) : StemScratch(a);
#else
  const size_t scratch = StemScratch(a);
#endif
  Run(kernel, &a, {x.data(), y.data()}, StemItems(a), scratch);

  const bool exact = !patches && planes.numbers != Numbers::kFloats;
  const int bits = patches ? 19 : 21;
  // Functions of sums that are not exact may jump, or be steep.
  const bool loose = a.act.fn > UnaryFn::kRelu && a.act.fn != UnaryFn::kClip;
  CheckPlanes(a, rows, columns, &x, &y,
              [&](const float* in, int64_t c, int64_t h, int64_t w, float got, double* sum) {
                double size = 0.0;
                *sum = a.pool ? -HUGE_VAL : Sum(a, in, c, h, w, &size);
                for (int64_t k = 0; a.pool && k < 9; ++k) {
                  const int64_t row = 2 * h + k / 3 - 1;
                  const int64_t column = 2 * w + k % 3 - 1;
                  if (row < 0 || row >= a.out_h || column < 0 || column >= a.out_w) continue;
                  double one = 0.0;
                  *sum = std::max(*sum, Sum(a, in, c, row, column, &one));
                  size = std::max(size, one);
                }
                if (exact) return Matches(a.act, got, *sum);
                // Rounding errors are those of a patch, of which the window may hold little.
                if (patches) size += kWstemKernel * kWstemKernel * a.in_channels;
                if (std::isinf(*sum)) return Matches(a.act, got, *sum);
                return loose || std::fabs(got - Activate(a.act, *sum)) <= std::ldexp(size, -bits);
              });
}

}  // namespace
}  // namespace test
}  // namespace sparsert

int main() {
  using namespace sparsert;
  using namespace sparsert::test;
  Random random(31);
  Kernel kernel;
  Expect(!SelectStem(Isa::kScalar, &kernel), "what has no tile registers has no kernel");
  if (!IsaAvailable(Isa::kAmx) || !SelectStem(Isa::kAmx, &kernel)) {
    std::printf("skipped: no AMX for stem\n");
  } else {
    for (int number = 0; number < 300; ++number) TestStem(kernel, false, number, &random);
  }
#if defined(SRT_X86)  // see kHasWstem
  Expect(!SelectWstem(Isa::kAvx2, &kernel), "AVX2 has no kernel");
  if (!IsaAvailable(Isa::kAvx512) || !SelectWstem(Isa::kAvx512, &kernel)) {
    std::printf("skipped: no AVX-512 for wstem\n");
  } else {
    for (int number = 0; number < 300; ++number) TestStem(kernel, true, number, &random);
  }
#endif
  return Finish("stem_test");
}
