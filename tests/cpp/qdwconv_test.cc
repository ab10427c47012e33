// qdwconv on every instruction set against sums in plain loops: results must match to the bit.
#include "kernels/qdwconv/qdwconv.h"

#include <cmath>

#include "product_harness.h"

namespace sparsert {
namespace test {
namespace {

struct Problem {
  int64_t batch, channels, kernel, stride;
  int64_t in[2], pad[2], pad_end[2];
};

uint8_t* Bytes(Guarded* floats) { return reinterpret_cast<uint8_t*>(floats->data()); }

void RunProblem(const Problem& p, const Kernel& kernel, int byte_offset, Random* random) {
  char text[200];
  std::snprintf(text, sizeof(text), "%s: batch %d, %d channels of %dx%d, kernel %d, stride %d",
                kernel.name, static_cast<int>(p.batch), static_cast<int>(p.channels),
                static_cast<int>(p.in[0]), static_cast<int>(p.in[1]), static_cast<int>(p.kernel),
                static_cast<int>(p.stride));
  context = text;
  Window w;
  w.spatial_rank = 2;
  for (int d = 0; d < 2; ++d) {
    w.in[d] = p.in[d];
    w.kernel[d] = p.kernel;
    w.stride[d] = p.stride;
    w.pad_begin[d] = p.pad[d];
    const int64_t spare = p.in[d] + p.pad[d] + p.pad_end[d] - p.kernel;
    if (spare < 0) return;
    w.out[d] = spare / p.stride + 1;
  }
  const int64_t planes = (p.channels + 3) / 4;
  const int64_t taps = p.kernel * p.kernel;
  const int64_t in = w.in[0] * w.in[1];
  const int64_t out = w.out[0] * w.out[1];
  QdwconvArgs a;
  a.batch = p.batch;
  a.planes = planes;
  a.kernel = static_cast<int32_t>(p.kernel);
  a.stride = static_cast<int32_t>(p.stride);
  a.pad_h = p.pad[0];
  a.pad_w = p.pad[1];
  a.in_h = w.in[0];
  a.in_w = w.in[1];
  a.out_h = w.out[0];
  a.out_w = w.out[1];
  a.x_plane = in + random->Int(0, 2);
  a.x_image = a.x_plane * planes;
  a.y_plane = out + random->Int(0, 20);
  a.y_image = a.y_plane * planes;
  const bool at_end = random->Int(0, 1) == 1;
  Guarded x(p.batch * a.x_image - (a.x_plane - in), at_end, 0.0f);
  Guarded y(p.batch * a.y_image - (a.y_plane - out), at_end, std::nanf(""));
  for (int64_t i = 0; i < 4 * x.size(); ++i)
    Bytes(&x)[i] = static_cast<uint8_t>(random->Int(0, 255));

  const int x_zero = static_cast<int>(random->Int(0, 255));
  a.fill = static_cast<uint8_t>(x_zero);
  a.zero = static_cast<int32_t>(random->Int(0, 255));
  a.low = random->Int(0, 1) == 1 ? a.zero : 0;
  a.high = static_cast<int32_t>(random->Int(a.zero, 255));
  const auto padded = static_cast<size_t>(4 * planes);
  std::vector<int> weights(padded * static_cast<size_t>(taps), 0);
  const int64_t row_bytes = QdwconvTapGroups(a.kernel) * 16;
  std::vector<int8_t> packed(static_cast<size_t>(planes * p.kernel * row_bytes), 0);
  std::vector<int32_t> start(padded, 0);
  std::vector<int32_t> bias(padded, 0);
  std::vector<float> scale(padded, 0.0f);
  for (int64_t c = 0; c < p.channels; ++c) {
    const auto i = static_cast<size_t>(c);
    int sum = 0;
    for (int64_t tap = 0; tap < taps; ++tap) {
      const int weight = static_cast<int>(random->Int(-128, 127));
      weights[i * static_cast<size_t>(taps) + static_cast<size_t>(tap)] = weight;
      const int64_t row = tap / p.kernel;
      const int64_t column = tap % p.kernel;
      packed[static_cast<size_t>((c / 4 * p.kernel + row) * row_bytes + column / 4 * 16 +
                                 c % 4 * 4 + column % 4)] = static_cast<int8_t>(weight);
      sum += weight;
    }
    bias[i] = static_cast<int32_t>(random->Int(-5000, 5000));
    start[i] = bias[i] - (x_zero - byte_offset) * sum;
    scale[i] = static_cast<float>(random->Uniform(0.2, 1.0) / 300.0);
  }
  a.weights = packed.data();
  a.start = start.data();
  a.scale = scale.data();

  Run(kernel, &a, {x.data(), y.data()}, QdwconvItems(a), 0);

  ++checks;
  for (int64_t plane = 0; plane < p.batch * planes; ++plane) {
    for (int64_t i = 0; i < a.y_plane; ++i) {
      const int64_t at = plane * a.y_plane + i;
      if (i >= out) {
        if (at < y.size() && !std::isnan(y[at])) return Fail("wrote behind a plane of Y");
        continue;
      }
      for (int64_t b = 0; b < 4; ++b) {
        const auto c = static_cast<size_t>(plane % planes * 4 + b);
        int64_t sum = bias[c];
        for (int64_t tap = 0; tap < taps; ++tap) {
          const int64_t offset = TapOffset(w, false, i, tap);
          if (offset < 0) continue;
          sum += weights[c * static_cast<size_t>(taps) + static_cast<size_t>(tap)] *
                 (Bytes(&x)[4 * (plane * a.x_plane + offset) + b] - x_zero);
        }
        const float z = static_cast<float>(sum) * scale[c];
        const float low = static_cast<float>(a.low - a.zero);
        const float high = static_cast<float>(a.high - a.zero);
        const int want =
            static_cast<int>(std::nearbyint(std::fmin(std::fmax(z, low), high))) + a.zero;
        if (Bytes(&y)[4 * at + b] != want) return Fail("a byte differs");
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
  Random random(5);
  int found = 0;
  for (const Isa isa : {Isa::kScalar, Isa::kAvx2, Isa::kAvx512Vnni, Isa::kNeon, Isa::kNeonDot}) {
    if (!IsaAvailable(isa)) continue;
    Kernel kernel;
    int byte_offset = 0;
    if (!SelectQdwconv(isa, &kernel, &byte_offset) || kernel.isa != isa) {
      Fail("a kernel on every instruction set");
      continue;
    }
    ++found;
    for (const int64_t size : {3, 5}) {
      for (const int64_t stride : {1, 2}) {
        for (const int64_t width : {1, 2, 3, 7, 14, 15, 16, 17, 21, 33, 36, 53, 71}) {
          for (const bool same : {true, false}) {
            Problem p = {random.Int(1, 2), random.Int(1, 9), size, stride, {}, {}, {}};
            p.in[0] = random.Int(1, 8);
            p.in[1] = width;
            for (int d = 0; d < 2; ++d) {  // as most networks have it, and others
              p.pad[d] = same ? size / 2 : random.Int(0, 7);
              p.pad_end[d] = same ? size / 2 : random.Int(0, 7);
            }
            RunProblem(p, kernel, byte_offset, &random);
          }
        }
      }
    }
  }
  Expect(found >= 1, "the scalar kernel at least");
  return Finish("qdwconv_test");
}
