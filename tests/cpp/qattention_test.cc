// Attention of bytes on every ISA: the scalar kernel against sums in doubles, the others against it
// to the bit. Queries and keys of no whole vectors or groups, masks, and all sorts of steps.
#include "kernels/qattention/qattention.h"

#include <cmath>
#include <memory>

#include "product_harness.h"

namespace sparsert {
namespace test {
namespace {

struct Sizes {
  int64_t batch, heads, queries, keys, planes, value_planes;
};

uint8_t Byte(Guarded* floats, int64_t element, int64_t i) {
  return reinterpret_cast<uint8_t*>(floats->data())[4 * element + i];
}

// Tokens side by side, with something behind each plane.
struct Operand {
  Operand(int64_t batch, int64_t planes, int64_t tokens)
      : plane(tokens + 3), image(planes * plane), memory(batch * image, true, 0.0f) {}
  PlaneStrides strides() const { return {image, plane}; }

  int64_t plane, image;
  Guarded memory;
};

double Step(const AttentionStep& s, double x) {
  if (s.scale == 0.0f) return x;
  const double level = std::nearbyint(x / static_cast<double>(s.scale)) + s.zero;
  return (std::fmin(std::fmax(level, s.low), s.high) - s.zero) * static_cast<double>(s.scale);
}

// What the attention of one query gives, before it is rounded; `p`: its shares as bytes.
std::vector<double> Weighed(const QattentionArgs& a, Operand* v, int64_t n, int64_t h,
                            const std::vector<int>& p) {
  std::vector<double> z(static_cast<size_t>(4 * a.value_planes));
  for (size_t d = 0; d < z.size(); ++d) {
    const auto feature = static_cast<int64_t>(d);
    int64_t sum = 0;
    for (int64_t t = 0; t < a.keys; ++t) {
      const int64_t at = n * v->image + (h * a.value_planes + feature / 4) * v->plane + t;
      sum += (p[static_cast<size_t>(t)] - a.steps[3].zero) *
             (Byte(&v->memory, at, feature % 4) - a.v_zero);
    }
    z[d] = static_cast<double>(sum) * static_cast<double>(a.steps[4].factor);
  }
  return z;
}

void CheckScalar(const QattentionArgs& a, Operand* q, Operand* k, Operand* v, const float* mask,
                 Operand* y) {
  for (int64_t n = 0; n < a.batch; ++n) {
    for (int64_t h = 0; h < a.heads; ++h) {
      for (int64_t i = 0; i < a.queries; ++i) {
        std::vector<double> s(static_cast<size_t>(a.keys));
        double max = -INFINITY;
        for (int64_t t = 0; t < a.keys; ++t) {
          int64_t sum = 0;
          for (int64_t f = 0; f < 4 * a.planes; ++f) {
            const int64_t plane = h * a.planes + f / 4;
            sum += (Byte(&q->memory, n * q->image + plane * q->plane + i, f % 4) - a.q_zero) *
                   (Byte(&k->memory, n * k->image + plane * k->plane + t, f % 4) - a.k_zero);
          }
          double score = Step(a.steps[0], static_cast<double>(sum) * a.steps[0].factor);
          score = Step(a.steps[1], score * a.steps[1].factor);
          if (mask != nullptr) {
            score += mask[n * a.mask.batch + h * a.mask.head + i * a.mask.query + t * a.mask.key];
          }
          s[static_cast<size_t>(t)] = Step(a.steps[2], score);
          max = std::fmax(max, s[static_cast<size_t>(t)]);
        }
        double total = 0.0;
        for (double& score : s) total += score = max == -INFINITY ? 0.0 : std::exp(score - max);
        std::vector<int> p;
        const AttentionStep& share = a.steps[3];
        for (const double e : s) {
          const double level = total == 0.0 ? 0.0 : std::nearbyint(e / total / share.scale);
          p.push_back(
              static_cast<int>(std::fmin(std::fmax(level + share.zero, share.low), share.high)));
        }
        const std::vector<double> z = Weighed(a, v, n, h, p);
        for (size_t d = 0; d < z.size(); ++d) {
          const auto f = static_cast<int64_t>(d);
          const int64_t plane = h * a.value_planes + f / 4;
          // A share may differ by one unit where it lies between two.
          const double slack = 255.0 * a.steps[4].factor;
          if (a.y_is_float) {
            const int64_t at = n * y->image + (4 * h * a.value_planes + f) * y->plane + i;
            if (std::abs(y->memory[at] - z[d]) > slack) return Fail("a float differs");
            continue;
          }
          const int got = Byte(&y->memory, n * y->image + plane * y->plane + i, f % 4);
          const AttentionStep& last = a.steps[4];
          const double want =
              std::fmin(std::fmax(z[d] / last.scale + last.zero, last.low), last.high);
          if (std::abs(got - want) > 0.51 + slack / last.scale) return Fail("a byte differs");
        }
      }
    }
  }
}

AttentionStep SomeStep(double factor, double scale, Random* random) {
  const auto zero = static_cast<int32_t>(random->Int(90, 160));
  const auto inverse = static_cast<float>(scale > 0.0 ? 1.0 / scale : 0.0);
  return {static_cast<float>(factor), static_cast<float>(scale), inverse, zero, 0, 255};
}

void CheckSizes(const Sizes& z, int number, Random* random) {
  QattentionArgs a = {};
  a.batch = z.batch;
  a.heads = z.heads;
  a.queries = z.queries;
  a.keys = z.keys;
  a.planes = z.planes;
  a.value_planes = z.value_planes;
  a.y_is_float = number % 3 == 0;
  a.q_zero = static_cast<int32_t>(random->Int(0, 255));
  a.k_zero = static_cast<int32_t>(random->Int(0, 255));
  a.v_zero = static_cast<int32_t>(random->Int(0, 255));
  // Some roundings are not there.
  a.steps[0] = SomeStep(1e-3 / static_cast<double>(z.planes), number % 2 == 0 ? 0.05 : 0.0, random);
  a.steps[1] = SomeStep(number % 4 < 2 ? 0.25 : 1.0, number % 4 == 0 ? 0.01 : 0.0, random);
  a.steps[2] = SomeStep(1.0, number % 5 < 2 ? 0.04 : 0.0, random);
  a.steps[3] = {1.0f, 1.0f / 255.0f, 255.0f, number % 4 == 3 ? 3 : 0, 0, 255};
  a.steps[4] = SomeStep(1.0 / 255.0 * 0.02, 0.02, random);
  Operand q(z.batch, z.heads * z.planes, z.queries);
  Operand k(z.batch, z.heads * z.planes, z.keys);
  Operand v(z.batch, z.heads * z.value_planes, z.keys);
  for (Operand* operand : {&q, &k, &v}) {
    for (int64_t i = 0; i < 4 * operand->memory.size(); ++i) {
      reinterpret_cast<uint8_t*>(operand->memory.data())[i] =
          static_cast<uint8_t>(random->Int(0, 255));
    }
  }
  a.q = q.strides();
  a.k = k.strides();
  a.v = v.strides();
  // None; one for all queries, wholly hidden at times; one of its own for each query.
  const int kind = number % 3;
  const bool own = kind == 2;
  Guarded mask(own ? z.batch * z.heads * z.keys * z.queries : z.keys, true, 0.0f);
  for (int64_t i = 0; i < mask.size(); ++i) {
    const bool hidden = kind == 1 && (number % 2 == 1 || i == 0);
    mask[i] = hidden ? -INFINITY : static_cast<float>(random->Uniform(-2.0, 0.0));
  }
  a.mask = {own ? z.heads * z.keys * z.queries : 0, own ? z.keys * z.queries : 0, own ? 1 : 0,
            own ? z.queries : 1};
  const int64_t y_planes = z.heads * z.value_planes * (a.y_is_float ? 4 : 1);
  std::unique_ptr<Operand> want;
  for (const Isa isa : {Isa::kScalar, Isa::kAvx2, Isa::kAvx512Vnni, Isa::kNeon, Isa::kNeonDot}) {
    if (!IsaAvailable(isa)) continue;
    Kernel kernel;
    Expect(SelectQattention(isa, &kernel) && kernel.isa == isa, "a kernel on every ISA");
    context = std::string(kernel.name) + " number " + std::to_string(number);
    auto y = std::make_unique<Operand>(z.batch, y_planes, z.queries);
    a.y = y->strides();
    Run(kernel, &a,
        {q.memory.data(), k.memory.data(), v.memory.data(), kind == 0 ? nullptr : mask.data(),
         y->memory.data()},
        QattentionItems(a), QattentionScratch(a));
    ++checks;
    if (want == nullptr) {
      CheckScalar(a, &q, &k, &v, kind == 0 ? nullptr : mask.data(), y.get());
      want = std::move(y);
    } else if (memcmp(want->memory.data(), y->memory.data(),
                      static_cast<size_t>(y->memory.size()) * sizeof(float)) != 0) {
      return Fail("differs from the scalar kernel");
    }
  }
}

}  // namespace
}  // namespace test
}  // namespace sparsert

int main() {
  using namespace sparsert::test;  // NOLINT
  Random random(23);
  const Sizes sizes[] = {{1, 1, 1, 1, 1, 1},   {1, 2, 7, 5, 3, 2},    {2, 2, 16, 16, 4, 4},
                         {1, 3, 65, 17, 2, 5}, {1, 1, 130, 70, 1, 3}, {2, 1, 33, 258, 16, 1}};
  int number = 0;
  for (int round = 0; round < 4; ++round) {
    for (const Sizes& z : sizes) CheckSizes(z, number++, &random);
    ++number;
  }
  return Finish("qattention_test");
}
