// phases over planes of every width and stride on every ISA: each element that a tap may read lies
// where the layout says, and nothing outside of the planes is read or written.
#include "kernels/phases/phases.h"

#include "product_harness.h"

namespace sparsert {
namespace test {
namespace {

void TestPhases(const Kernel& kernel, int64_t width, int64_t stride, Random* random) {
  PhasesArgs a;
  a.in_h = random->Int(1, 7);
  a.in_w = width;
  a.channels = random->Int(1, 3);
  a.planes = a.channels * random->Int(1, 3);
  a.layout = LayOutPhases(a.in_h, a.in_w, random->Int(1, 4), stride);
  a.used_h = a.used_w = 0xffff;
  if (random->Int(0, 1) == 1) {
    a.used_h = static_cast<uint32_t>(random->Int(0, 15));
    a.used_w = static_cast<uint32_t>(random->Int(0, 0xffff));
  }
  a.x_plane = a.in_h * a.in_w + random->Int(0, 3);
  a.x_image = a.x_plane * a.channels + random->Int(0, 5);
  a.y_plane = a.layout.floats();
  char text[200];
  std::snprintf(text, sizeof(text), "%s: planes of %lldx%lld, strides %lldx%lld, used %x and %x",
                kernel.name, static_cast<long long>(a.in_h), static_cast<long long>(a.in_w),
                static_cast<long long>(a.layout.stride_h), static_cast<long long>(stride), a.used_h,
                a.used_w);
  context = text;
  const float nan = std::nanf("");
  const int64_t images = a.planes / a.channels;
  Guarded x(
      images * a.x_image - (a.x_image - a.channels * a.x_plane) - (a.x_plane - a.in_h * a.in_w),
      random->Int(0, 1) == 1, nan);
  Guarded y(a.planes * a.y_plane, random->Int(0, 1) == 1, nan);
  for (int64_t i = 0; i < x.size(); ++i) x[i] = Quarter(random, 100);
  Run(kernel, &a, {x.data(), y.data()}, PhasesItems(a), 0);
  ++checks;
  for (int64_t p = 0; p < a.planes; ++p) {
    const float* from = x.data() + p / a.channels * a.x_image + p % a.channels * a.x_plane;
    const float* to = y.data() + p * a.y_plane;
    for (int64_t ih = 0; ih < a.in_h; ++ih) {
      for (int64_t iw = 0; iw < a.in_w; ++iw) {
        if ((a.used_h >> ih % a.layout.stride_h & 1) == 0) continue;
        if ((a.used_w >> iw % a.layout.stride_w & 1) == 0) continue;
        if (to[a.layout.Offset(ih, iw)] == from[ih * a.in_w + iw]) continue;
        return Fail("an element is not in its phase");
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
  Random random(31);
  for (const Isa isa : Isas()) {
    Kernel kernel;
    Expect(SelectPhases(isa, &kernel) && kernel.isa == isa, "there is a kernel on every ISA");
    for (const int64_t width :
         {1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 47, 63, 64, 65, 97, 127, 128, 129, 200}) {
      for (const int64_t stride : {1, 2, 3, 4, 5, 7, 8, 16}) {
        TestPhases(kernel, width, stride, &random);
      }
    }
  }
  return Finish("phases_test");
}
