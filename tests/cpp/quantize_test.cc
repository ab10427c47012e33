// The ops on packed bytes besides products, on every instruction set, against plain loops that
// round each step as floats do: results must match to the bit.
#include "kernels/quantize/quantize.h"

#include <cmath>

#include "kernels/qpool/qpool.h"
#include "plan/build_taps.h"
#include "product_harness.h"

namespace sparsert {
namespace test {
namespace {

uint8_t* Bytes(Guarded* floats) { return reinterpret_cast<uint8_t*>(floats->data()); }

float Clamp(float a, int low, int high) {
  return std::fmin(std::fmax(a, static_cast<float>(low)), static_cast<float>(high));
}

int RoundToByte(float z, int zero, int low, int high) {
  return static_cast<int>(std::nearbyint(Clamp(z, low - zero, high - zero))) + zero;
}

// Strides of packed planes or of planes of floats, with something between them.
struct Layout {
  int64_t plane, image;
  Layout(int64_t planes, int64_t columns, bool padded, Random* random)
      : plane(columns + (padded ? random->Int(0, 3) : 0)), image(plane * planes) {
    if (padded) image += random->Int(0, 3);
  }
  int64_t Size(int64_t batch, int64_t planes, int64_t columns) const {
    return (batch - 1) * image + (planes - 1) * plane + columns;
  }
};

struct Sizes {
  int64_t batch, channels, columns;
  bool padded;
};

std::vector<Sizes> SomeSizes() {
  std::vector<Sizes> list;
  for (const int64_t channels : {1, 2, 3, 4, 5, 7, 8, 63, 64, 65, 130}) {
    for (const int64_t columns : {1, 2, 3, 15, 16, 17, 31, 49}) {
      list.push_back({channels % 3 == 0 ? 2 : 1, channels, columns, columns % 2 == 1});
    }
    list.push_back({2, channels, 1, false});  // channels side by side
  }
  return list;
}

QuantizeArgs ArgsOf(const Sizes& s, const Layout& x, const Layout& y) {
  QuantizeArgs a;
  a.batch = s.batch;
  a.planes = (s.channels + 3) / 4;
  a.channels = s.channels;
  a.columns = s.columns;
  a.x_image = x.image;
  a.x_plane = x.plane;
  a.y_image = y.image;
  a.y_plane = y.plane;
  return a;
}

void Finite(QuantizeArgs* a, Random* random) {
  a->zero = static_cast<int32_t>(random->Int(0, 255));
  a->low = static_cast<int32_t>(random->Int(0, a->zero));
  a->high = static_cast<int32_t>(random->Int(a->zero, 255));
}

void TestConversions(Isa isa, Random* random) {
  Kernel quantize;
  Kernel dequantize;
  Expect(SelectQuantize(QuantizeOp::kQuantize, isa, &quantize) && quantize.isa == isa &&
             SelectQuantize(QuantizeOp::kDequantize, isa, &dequantize) && dequantize.isa == isa,
         "a kernel on every instruction set");
  for (const Sizes& s : SomeSizes()) {
    context = std::string(quantize.name) + " of " + std::to_string(s.batch) + "x" +
              std::to_string(s.channels) + "x" + std::to_string(s.columns);
    const int64_t planes = (s.channels + 3) / 4;
    const Layout lx(s.channels, s.columns, s.padded, random);
    const Layout ly(planes, s.columns, s.padded, random);
    const bool at_end = random->Int(0, 1) == 1;
    const float nan = std::nanf("");
    Guarded x(lx.Size(s.batch, s.channels, s.columns), at_end, 0.0f);
    Guarded y(ly.Size(s.batch, planes, s.columns), at_end, nan);
    Guarded back(lx.Size(s.batch, s.channels, s.columns), at_end, nan);
    QuantizeArgs a = ArgsOf(s, lx, ly);
    a.scale = static_cast<float>(random->Uniform(0.01, 2.0));
    Finite(&a, random);
    for (int64_t i = 0; i < x.size(); ++i) {
      const int64_t sort = random->Int(0, 15);
      x[i] = sort == 0   ? 3e38f
             : sort == 1 ? -INFINITY
             : sort == 2 ? a.scale * (static_cast<float>(random->Int(-99, 99)) + 0.5f)
                         : static_cast<float>(random->Uniform(-200.0, 200.0)) * a.scale;
    }
    Run(quantize, &a, {x.data(), y.data()}, QuantizeItems(a), 0);
    ++checks;
    for (int64_t n = 0; n < s.batch; ++n) {
      for (int64_t c = 0; c < 4 * planes; ++c) {
        for (int64_t i = 0; i < s.columns; ++i) {
          const float in = c < s.channels ? x[n * lx.image + c * lx.plane + i] / a.scale : 0.0f;
          const int got = Bytes(&y)[4 * (n * ly.image + c / 4 * ly.plane + i) + c % 4];
          if (got != RoundToByte(in, a.zero, a.low, a.high)) return Fail("a byte differs");
        }
      }
    }

    QuantizeArgs d = a;
    d.x_image = ly.image;
    d.x_plane = ly.plane;
    d.y_image = lx.image;
    d.y_plane = lx.plane;
    d.x_zero = a.zero;
    Run(dequantize, &d, {y.data(), back.data()}, QuantizeItems(d), 0);
    ++checks;
    for (int64_t n = 0; n < s.batch; ++n) {
      for (int64_t c = 0; c < s.channels; ++c) {
        for (int64_t i = 0; i < s.columns; ++i) {
          const int byte = Bytes(&y)[4 * (n * ly.image + c / 4 * ly.plane + i) + c % 4];
          const float want = static_cast<float>(byte - a.zero) * a.scale;
          if (back[n * lx.image + c * lx.plane + i] != want) return Fail("a float differs");
        }
      }
    }
    for (int64_t i = 0; i < back.size() && lx.plane != s.columns; ++i) {
      if (i % lx.image % lx.plane >= s.columns && i % lx.image < lx.plane * s.channels &&
          !std::isnan(back[i])) {
        return Fail("wrote behind a plane");
      }
    }
  }
}

// Ranges of both signs and of one, of nothing but zeros, and infinite ones.
void TestDynamic(Isa isa, Random* random) {
  Kernel range;
  Kernel quantize;
  Expect(SelectQuantize(QuantizeOp::kRange, isa, &range) && range.isa == isa &&
             SelectQuantize(QuantizeOp::kDynamic, isa, &quantize) && quantize.isa == isa,
         "a kernel on every instruction set");
  int number = 0;
  for (const Sizes& s : SomeSizes()) {
    const int sort = number++ % 5;
    context = std::string(quantize.name) + " of " + std::to_string(s.batch) + "x" +
              std::to_string(s.channels) + "x" + std::to_string(s.columns) + ", " +
              std::to_string(sort);
    const int64_t planes = (s.channels + 3) / 4;
    const Layout lx(s.channels, s.columns, s.padded, random);
    const Layout ly(planes, s.columns, s.padded, random);
    QuantizeArgs a = ArgsOf(s, lx, ly);
    a.parts = random->Int(1, 3);
    // What lies between planes is beyond the range.
    Guarded x(lx.Size(s.batch, s.channels, s.columns), true, 1e9f);
    Guarded y(ly.Size(s.batch, planes, s.columns), true, std::nanf(""));
    Guarded ranges(2 * a.parts, true, 0.0f);
    Guarded params(2, true, 0.0f);
    float low = 0.0f;
    float high = 0.0f;
    for (int64_t n = 0; n < s.batch; ++n) {
      for (int64_t c = 0; c < s.channels; ++c) {
        for (int64_t i = 0; i < s.columns; ++i) {
          float& value = x[n * lx.image + c * lx.plane + i];
          value = sort == 3 ? 0.0f
                            : static_cast<float>(
                                  random->Uniform(sort == 1 ? 0.5 : -3.0, sort == 2 ? -0.25 : 5.0));
          if (sort == 4 && i == 0) value = INFINITY;
          low = std::fmin(low, value);
          high = std::fmax(high, value);
        }
      }
    }
    Run(range, &a, {x.data(), ranges.data()}, a.parts, 0);
    Run(quantize, &a, {x.data(), ranges.data(), y.data(), params.data()}, QuantizeItems(a), 0);
    ++checks;
    const float scale = high == low ? 1.0f : (high - low) / 255.0f;
    const float zero = std::nearbyint(Clamp(-low / scale, 0, 255));
    if (params[0] != scale || params[1] != zero) return Fail("scale or zero point differ");
    if (sort == 4) continue;  // any bytes
    for (int64_t n = 0; n < s.batch; ++n) {
      for (int64_t c = 0; c < s.channels; ++c) {
        for (int64_t i = 0; i < s.columns; ++i) {
          const float in = x[n * lx.image + c * lx.plane + i] / scale;
          const int got = Bytes(&y)[4 * (n * ly.image + c / 4 * ly.plane + i) + c % 4];
          if (got != RoundToByte(in, static_cast<int>(zero), 0, 255)) return Fail("a byte differs");
        }
      }
    }
  }
}

void TestAddAndLookup(Isa isa, Random* random) {
  Kernel add;
  Kernel lookup;
  Expect(SelectQuantize(QuantizeOp::kAdd, isa, &add) && add.isa == isa &&
             SelectQuantize(QuantizeOp::kLookup, isa, &lookup) && lookup.isa == isa,
         "a kernel on every instruction set");
  uint8_t table[256];
  for (uint8_t& byte : table) byte = static_cast<uint8_t>(random->Int(0, 255));
  for (const Sizes& s : SomeSizes()) {
    context = std::string(add.name) + " of " + std::to_string(s.channels) + "x" +
              std::to_string(s.columns);
    const int64_t planes = (s.channels + 3) / 4;
    const Layout la(planes, s.columns, s.padded, random);
    const Layout lb(planes, s.columns, s.padded, random);
    const int64_t a_size = la.Size(s.batch, planes, s.columns);
    Guarded x(a_size, true, 0.0f);
    Guarded b(lb.Size(s.batch, planes, s.columns), true, 0.0f);
    Guarded y(a_size, true, 0.0f);
    Guarded looked(a_size, true, 0.0f);
    for (int64_t i = 0; i < 4 * x.size(); ++i) {
      Bytes(&x)[i] = static_cast<uint8_t>(random->Int(0, 255));
    }
    for (int64_t i = 0; i < 4 * b.size(); ++i) {
      Bytes(&b)[i] = static_cast<uint8_t>(random->Int(0, 255));
    }
    QuantizeArgs a;
    a.batch = s.batch;
    a.planes = planes;
    a.columns = s.columns;
    a.x_image = a.y_image = la.image;
    a.x_plane = a.y_plane = la.plane;
    a.b_image = lb.image;
    a.b_plane = lb.plane;
    a.scale = static_cast<float>(random->Uniform(0.1, 2.0));
    a.b_scale = static_cast<float>(random->Uniform(0.1, 2.0));
    a.x_zero = static_cast<int32_t>(random->Int(0, 255));
    a.b_zero = static_cast<int32_t>(random->Int(0, 255));
    a.table = table;
    Finite(&a, random);
    Run(add, &a, {x.data(), b.data(), y.data()}, QuantizeItems(a), 0);
    Run(lookup, &a, {x.data(), looked.data()}, QuantizeItems(a), 0);
    ++checks;
    for (int64_t n = 0; n < s.batch; ++n) {
      for (int64_t p = 0; p < planes; ++p) {
        for (int64_t i = 0; i < 4 * s.columns; ++i) {
          const int64_t at = 4 * (n * la.image + p * la.plane) + i;
          const int a_byte = Bytes(&x)[at];
          const int b_byte = Bytes(&b)[4 * (n * lb.image + p * lb.plane) + i];
          const float left = static_cast<float>(a_byte - a.x_zero) * a.scale;
          const float right = static_cast<float>(b_byte - a.b_zero) * a.b_scale;
          if (Bytes(&y)[at] != RoundToByte(left + right, a.zero, a.low, a.high)) {
            return Fail("a sum differs");
          }
          if (Bytes(&looked)[at] != table[a_byte]) return Fail("a looked up byte differs");
        }
      }
    }
  }
}

double GeluOf(UnaryFn fn, double x) {
  if (fn == UnaryFn::kGelu) return x * std::erfc(-x * std::sqrt(0.5)) / 2;
  return x / 2 * (1 + std::tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)));
}

// Every combination of a bias, a residual of floats or bytes, and a result of floats or bytes.
void TestElementwise(Isa isa, Random* random) {
  Kernel kernel;
  Expect(SelectQuantize(QuantizeOp::kElementwise, isa, &kernel) && kernel.isa == isa,
         "a kernel on every instruction set");
  int number = 0;
  for (const Sizes& s : SomeSizes()) {
    ++number;
    context = std::string(kernel.name) + " of " + std::to_string(s.channels) + "x" +
              std::to_string(s.columns) + ", number " + std::to_string(number);
    QuantizeArgs a;
    const bool has_bias = number % 2 == 0;
    const bool has_residual = number % 3 != 0;
    a.r_is_float = number % 5 < 2;
    a.y_is_float = number % 7 < 3;
    constexpr UnaryFn kFunctions[] = {UnaryFn::kNone, UnaryFn::kRelu, UnaryFn::kGelu,
                                      UnaryFn::kGeluTanh};
    a.act.fn = kFunctions[number / 3 % 4];
    const bool is_gelu = a.act.fn == UnaryFn::kGelu || a.act.fn == UnaryFn::kGeluTanh;
    if (is_gelu) a.y_is_float = false;
    a.is_coarse = is_gelu;
    const int64_t planes = (s.channels + 3) / 4;
    const int64_t r_planes = a.r_is_float ? s.channels : planes;
    const int64_t y_planes = a.y_is_float ? s.channels : planes;
    const Layout lx(planes, s.columns, s.padded, random);
    const Layout lr(r_planes, s.columns, s.padded, random);
    const Layout ly(y_planes, s.columns, s.padded, random);
    Guarded x(lx.Size(s.batch, planes, s.columns), true, 0.0f);
    Guarded r(lr.Size(s.batch, r_planes, s.columns), true, 0.0f);
    Guarded y(ly.Size(s.batch, y_planes, s.columns), true, std::nanf(""));
    std::vector<float> bias(static_cast<size_t>(s.channels));
    for (float& value : bias) value = static_cast<float>(random->Uniform(-9.0, 9.0));
    for (int64_t i = 0; i < 4 * x.size(); ++i) {
      Bytes(&x)[i] = static_cast<uint8_t>(random->Int(0, 255));
    }
    for (int64_t i = 0; i < 4 * r.size(); ++i) {
      Bytes(&r)[i] = static_cast<uint8_t>(random->Int(0, 255));
    }
    for (int64_t i = 0; i < r.size() && a.r_is_float; ++i) {
      r[i] = i % 19 == 0 ? 3e38f : static_cast<float>(random->Uniform(-99.0, 99.0));
    }
    a.batch = s.batch;
    a.planes = planes;
    a.channels = s.channels;
    a.columns = s.columns;
    a.x_image = lx.image;
    a.x_plane = lx.plane;
    a.b_image = lr.image;
    a.b_plane = lr.plane;
    a.y_image = ly.image;
    a.y_plane = ly.plane;
    a.scale = static_cast<float>(random->Uniform(0.1, 2.0));
    a.b_scale = static_cast<float>(random->Uniform(0.1, 2.0));
    a.y_factor = static_cast<float>(random->Uniform(0.3, 2.0));
    if (is_gelu) {
      a.scale *= 0.03f;
      a.b_scale *= 0.03f;
      a.y_factor *= 40.0f;
    }
    a.x_zero = static_cast<int32_t>(random->Int(0, 255));
    a.b_zero = static_cast<int32_t>(random->Int(0, 255));
    a.bias = has_bias ? bias.data() : nullptr;
    Finite(&a, random);
    Run(kernel, &a, {x.data(), has_residual ? r.data() : nullptr, y.data()}, QuantizeItems(a), 0);
    ++checks;
    for (int64_t n = 0; n < s.batch; ++n) {
      for (int64_t c = 0; c < s.channels; ++c) {
        for (int64_t i = 0; i < s.columns; ++i) {
          const int byte = Bytes(&x)[4 * (n * lx.image + c / 4 * lx.plane + i) + c % 4];
          float z = static_cast<float>(byte - a.x_zero) * a.scale;
          if (has_bias) z += bias[static_cast<size_t>(c)];
          if (has_residual && a.r_is_float) z += r[n * lr.image + c * lr.plane + i];
          if (has_residual && !a.r_is_float) {
            const int other = Bytes(&r)[4 * (n * lr.image + c / 4 * lr.plane + i) + c % 4];
            z += static_cast<float>(other - a.b_zero) * a.b_scale;
          }
          if (a.act.fn == UnaryFn::kRelu) z = std::fmax(z, 0.0f);
          if (a.y_is_float) {
            if (y[n * ly.image + c * ly.plane + i] != z) return Fail("a float differs");
            continue;
          }
          const int got = Bytes(&y)[4 * (n * ly.image + c / 4 * ly.plane + i) + c % 4];
          if (is_gelu) {
            const double units = GeluOf(a.act.fn, z) * a.y_factor;
            const double limited = std::fmin(std::fmax(units, a.low - a.zero), a.high - a.zero);
            const double allowed = 0.501 + a.y_factor * kCoarseGeluError;
            if (std::fabs(got - a.zero - limited) > allowed) return Fail("a byte of Gelu differs");
            continue;
          }
          if (got != RoundToByte(z * a.y_factor, a.zero, a.low, a.high)) {
            return Fail("a byte differs");
          }
        }
      }
    }
  }
}

void TestPools(Isa isa, Random* random) {
  Kernel max;
  int lanes = 0;
  Expect(SelectQmaxPool(isa, &max, &lanes) && max.isa == isa, "a kernel on every instruction set");
  for (int number = 0; number < 200; ++number) {
    Window w = RandomWindow(random, false, random->Int(1, 40));
    for (int d = 0; d < 2 && number % 2 == 0; ++d) {  // those that are found by rows
      w.kernel[d] = 2 + number / 2 % 2;
      w.stride[d] = 1 + number / 4 % 2;
      w.dilation[d] = 1;
      w.out[d] = std::max<int64_t>(0, w.in[d] + 2 * w.pad_begin[d] - w.kernel[d]) / w.stride[d] + 1;
    }
    context = std::string(max.name) + " number " + std::to_string(number);
    const int64_t in = w.in[0] * w.in[1];
    const int64_t planes = random->Int(1, 3);
    const Layout lx(planes, in, true, random);
    const Layout ly(planes, w.out[0] * w.out[1], true, random);
    Guarded x(lx.Size(2, planes, in), number % 2 == 0, 0.0f);
    Guarded y(ly.Size(2, planes, w.out[0] * w.out[1]), true, 0.0f);
    Guarded mean(y.size(), true, 0.0f);
    for (int64_t i = 0; i < 4 * x.size(); ++i) {
      Bytes(&x)[i] = static_cast<uint8_t>(random->Int(0, 255));
    }
    QpoolArgs a;
    a.batch = 2;
    a.planes = planes;
    a.columns = w.out[0] * w.out[1];
    a.x_image = lx.image;
    a.x_plane = lx.plane;
    a.y_image = ly.image;
    a.y_plane = ly.plane;
    Bump bump(DefaultAllocator());
    Must(BuildTaps(w, false, PlaneLayout(w, false), MakeTiling(a.columns, lanes, 1, 1), &bump,
                   &a.taps));
    for (int d = 0; d < 2; ++d) {
      a.kernel[d] = w.kernel[d];
      a.stride[d] = w.stride[d];
      a.dilation[d] = w.dilation[d];
      a.pad_begin[d] = w.pad_begin[d];
      a.in[d] = w.in[d];
      a.out[d] = w.out[d];
      a.ends[d] = w.in[d] + 2 * w.pad_begin[d];
    }
    a.by_rows = QmaxPoolHasRows(a);
    a.count_padding = number % 3 == 0;
    a.scale = static_cast<float>(random->Uniform(0.3, 2.0));
    a.x_zero = static_cast<int32_t>(random->Int(0, 255));
    a.zero = static_cast<int32_t>(random->Int(0, 255));
    a.low = static_cast<int32_t>(random->Int(0, a.zero));
    Run(max, &a, {x.data(), y.data()}, QpoolItems(a), 0);
    Run(QaveragePool(), &a, {x.data(), mean.data()}, QpoolItems(a), 0);
    ++checks;
    const int64_t taps = w.kernel[0] * w.kernel[1];
    for (int64_t p = 0; p < 2 * planes; ++p) {
      const int64_t from = p / planes * lx.image + p % planes * lx.plane;
      const int64_t to = p / planes * ly.image + p % planes * ly.plane;
      for (int64_t i = 0; i < 4 * a.columns; ++i) {
        int largest = 0;
        int64_t sum = 0;
        int64_t elements = 0;
        int64_t padded = 0;
        for (int64_t t = 0; t < taps; ++t) {
          const int64_t offset = TapOffset(w, false, i / 4, t);
          bool inside = true;
          for (int d = 0; d < 2; ++d) {
            const int64_t out = d == 0 ? i / 4 / w.out[1] : i / 4 % w.out[1];
            const int64_t k = d == 0 ? t / w.kernel[1] : t % w.kernel[1];
            inside &= out * w.stride[d] + k * w.dilation[d] < a.ends[d];
          }
          padded += inside;
          if (offset < 0) continue;
          const int byte = Bytes(&x)[4 * (from + offset) + i % 4];
          largest = std::max(largest, byte);
          sum += byte - a.x_zero;
          ++elements;
        }
        if (Bytes(&y)[4 * to + i] != largest) return Fail("a maximum differs");
        const int64_t count = std::max<int64_t>(1, a.count_padding ? padded : elements);
        const float z = static_cast<float>(sum) / static_cast<float>(count) * a.scale;
        if (Bytes(&mean)[4 * to + i] != RoundToByte(z, a.zero, a.low, a.high)) {
          return Fail("a mean differs");
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
  for (const Isa isa : {Isa::kScalar, Isa::kAvx2, Isa::kAvx512Vnni, Isa::kNeon}) {
    if (!IsaAvailable(isa)) continue;
    TestConversions(isa, &random);
    TestDynamic(isa, &random);
    TestAddAndLookup(isa, &random);
    TestElementwise(isa, &random);
    TestPools(isa, &random);
  }
  return Finish("quantize_test");
}
