// Unary, Binary, BatchNorm and PRelu against double references on every ISA.
#include "activation_reference.h"
#include "kernel_harness.h"
#include "kernels/batch_norm/batch_norm.h"
#include "kernels/binary/binary.h"
#include "kernels/prelu/prelu.h"
#include "kernels/unary/unary.h"

namespace sparsert {
namespace test {
namespace {

double Combine(BinaryFn fn, double a, double b) {
  switch (fn) {
    case BinaryFn::kAdd:
      return a + b;
    case BinaryFn::kSub:
      return a - b;
    case BinaryFn::kMul:
      return a * b;
    case BinaryFn::kDiv:
      return a / b;
    case BinaryFn::kPow:
      return std::pow(a, b);
    case BinaryFn::kMod: {
      const double r = std::fmod(a, b);
      return r != 0.0 && (r < 0.0) != (b < 0.0) ? r + b : r;
    }
    case BinaryFn::kFmod:
      return std::fmod(a, b);
    case BinaryFn::kMin:
      return std::isnan(a) || std::isnan(b) ? NAN : std::fmin(a, b);
    default:
      return std::isnan(a) || std::isnan(b) ? NAN : std::fmax(a, b);
  }
}

// float(want) in range: what float arithmetic calls infinity or a denormal.
double AsFloat(double want) {
  return std::fabs(want) < 1e-35 || std::fabs(want) > 3e38 ? static_cast<float>(want) : want;
}

Activation ActivationFor(UnaryFn fn) {
  switch (fn) {
    case UnaryFn::kSelu:
      return {fn, 1.67326f, 1.0507f};
    case UnaryFn::kHardSigmoid:
      return {fn, 0.2f, 0.5f};
    case UnaryFn::kClip:
      return {fn, -1.5f, 2.25f};
    case UnaryFn::kSilu:
      return {fn, 1.0f, 0.0f};
    default:
      return {fn, 0.75f, 0.25f};
  }
}

void CheckUnary(const Tensor& x, const Activation& act, Isa isa, int64_t padding) {
  std::vector<int64_t> dims(x.desc.shape.dims, x.desc.shape.dims + x.desc.shape.rank);
  Tensor y(DType::kF32, dims, padding);
  std::vector<double> want;
  for (int64_t i = 0; i < x.elements(); ++i) {
    double w = AsFloat(Activate(act, static_cast<double>(x.F(i))));
    // x * 0 at minus infinity: the formula of these, as floats evaluate it, is NaN. Gelu has its
    // limit there.
    const bool product =
        act.fn == UnaryFn::kSilu || act.fn == UnaryFn::kGeluTanh || act.fn == UnaryFn::kMish;
    if (std::isinf(x.F(i)) && x.F(i) < 0) w = product ? NAN : act.fn == UnaryFn::kGelu ? 0.0 : w;
    want.push_back(w);
  }
  const UnaryArgs args = MakeUnaryArgs(x.desc, y.desc, act);
  Kernel kernel;
  Expect(SelectUnary(args, isa, &kernel), "no kernel");
  Expect(kernel.isa == isa, "a kernel of another ISA");
  Run(kernel, &args, {const_cast<void*>(x.data()), y.data()}, UnaryItems(args), 0);
  const bool trigonometric = act.fn == UnaryFn::kSin || act.fn == UnaryFn::kCos;
  // Cancellation of the formulas at their kinks is absolute.
  const bool steps = act.fn == UnaryFn::kHardSigmoid || act.fn == UnaryFn::kHardSwish;
  // Far in their tails these are 0, divided by a sum that overflows, or amplify the rounding of a
  // denormal factor, of the cubic, and (without FMA) of the square.
  const bool overflow = act.fn == UnaryFn::kSigmoid || act.fn == UnaryFn::kSilu;
  const bool tail = act.fn == UnaryFn::kMish;
  const bool cubic = act.fn == UnaryFn::kGeluTanh;
  const bool square = act.fn == UnaryFn::kGelu;
  ExpectNear(y, want, 2e-6,
             trigonometric ? 2e-7
             : steps       ? 4e-7
             : cubic       ? 1e-8
             : square      ? 1e-14
             : overflow    ? 3e-37
             : tail        ? 1e-41
                           : 3e-45);
}

void TestUnary() {
  for (const Isa isa : Isas()) {
    for (int f = 0; f < kUnaryFns; ++f) {
      const Activation act = ActivationFor(static_cast<UnaryFn>(f));
      context = "unary " + std::to_string(f) + " isa " + std::to_string(static_cast<int>(isa));
      Random random(static_cast<uint64_t>(f));
      for (const double range : {1e-3, 0.5, 3.0, 12.0, 100.0, 5000.0}) {
        Tensor x(DType::kF32, {4001});
        x.FillUniform(&random, -range, range);
        CheckUnary(x, act, isa, 0);
      }
      Tensor special(DType::kF32, {20});
      const float inf = INFINITY;
      const float values[] = {0.0f,   -0.0f,   inf,     -inf,   NAN,    1.0f,  -1.0f,
                              1e-40f, -1e-40f, 3e38f,   -3e38f, 1e-38f, 88.5f, -88.5f,
                              89.5f,  -95.0f,  -103.0f, 0.5f,   1.5f,   2.5f};
      for (int i = 0; i < 20; ++i) special.F(i) = values[i];
      CheckUnary(special, act, isa, 0);
    }
    for (const auto& dims : std::vector<std::vector<int64_t>>{{},
                                                              {1},
                                                              {17},
                                                              {3, 5},
                                                              {2, 3, 7},
                                                              {2, 3, 5, 7},
                                                              {1, 5, 1, 1},
                                                              {2, 1, 3, 1, 2},
                                                              {50001},
                                                              {0, 3},
                                                              {2, 3, 0, 4}}) {
      for (const int64_t padding : {0, 3}) {
        context = "unary shapes isa " + std::to_string(static_cast<int>(isa));
        Random random(7);
        Tensor x(DType::kF32, dims, padding * 2);
        x.FillUniform(&random, -3, 3);
        CheckUnary(x, ActivationFor(UnaryFn::kTanh), isa, padding);
      }
    }
  }
}

double AtBroadcast(const Tensor& x, const std::vector<int64_t>& index) {
  const Shape& shape = x.desc.shape;
  std::vector<int64_t> own;
  for (int d = 0; d < shape.rank; ++d) {
    const size_t at = index.size() - static_cast<size_t>(shape.rank - d);
    own.push_back(shape.dims[d] == 1 ? 0 : index[at]);
  }
  return static_cast<double>(x.F(Ravel(own, shape)));
}

void TestBinary() {
  struct Case {
    std::vector<int64_t> a, b, y;
  };
  const std::vector<Case> cases = {
      {{}, {}, {}},
      {{7}, {7}, {7}},
      {{40003}, {}, {40003}},
      {{1}, {33}, {33}},
      {{2, 3, 5, 7}, {2, 3, 5, 7}, {2, 3, 5, 7}},
      {{2, 3, 5, 7}, {3, 1, 1}, {2, 3, 5, 7}},
      {{2, 3, 1, 1}, {2, 3, 5, 7}, {2, 3, 5, 7}},
      {{2, 3, 5, 7}, {5, 1}, {2, 3, 5, 7}},
      {{2, 3, 5, 1}, {1, 7}, {2, 3, 5, 7}},
      {{2, 1, 5, 7}, {3, 1, 1}, {2, 3, 5, 7}},
      {{4, 1, 6}, {3, 1}, {4, 3, 6}},
      {{1, 11, 1, 1}, {1, 11, 1, 1}, {1, 11, 1, 1}},
      {{2, 1, 3, 1, 2}, {4, 1, 5, 1}, {2, 4, 3, 5, 2}},
      {{0, 3}, {3}, {0, 3}},
  };
  const Activation acts[] = {{UnaryFn::kNone, 0, 0},
                             {UnaryFn::kRelu, 0, 0},
                             {UnaryFn::kClip, -0.5f, 6.0f},
                             {UnaryFn::kSilu, 1.0f, 0}};
  for (const Isa isa : Isas()) {
    for (int f = 0; f < static_cast<int>(BinaryFn::kCount); ++f) {
      const BinaryFn fn = static_cast<BinaryFn>(f);
      if (fn > BinaryFn::kFmod) continue;  // of integers
      for (size_t c = 0; c < cases.size(); ++c) {
        for (int64_t padding = 0; padding <= 4; padding += 2) {
          const Activation& act = acts[(c + static_cast<size_t>(padding)) % 4];
          context = "binary " + std::to_string(f) + " case " + std::to_string(c) + " isa " +
                    std::to_string(static_cast<int>(isa));
          Random random(c + 11);
          Tensor a(DType::kF32, cases[c].a, padding);
          Tensor b(DType::kF32, cases[c].b, padding / 2);
          Tensor y(DType::kF32, cases[c].y, padding * 3);
          a.FillUniform(&random, fn == BinaryFn::kPow ? 0.1 : -4.0, 4.0);
          b.FillUniform(&random, -3.0, 3.0);
          if (a.elements() > 5 && b.elements() > 5 && fn != BinaryFn::kPow) {
            a.F(2) = NAN;
            b.F(4) = NAN;
          }
          std::vector<double> want;
          for (int64_t i = 0; i < y.elements(); ++i) {
            const std::vector<int64_t> index = Unravel(i, y.desc.shape);
            want.push_back(
                Activate(act, Combine(fn, AtBroadcast(a, index), AtBroadcast(b, index))));
          }
          const BinaryArgs args = MakeBinaryArgs(fn, a.desc, b.desc, y.desc, act);
          Kernel kernel;
          Expect(SelectBinary(args, isa, &kernel) && kernel.isa == isa, "no kernel");
          Run(kernel, &args, {a.data(), b.data(), y.data()}, BinaryItems(args), 0);
          ExpectNear(y, want, 4e-6, 1e-6);
        }
      }
    }
    for (const float e : {1.0f, 2.0f, 3.0f, -1.0f, 0.5f, 0.0f, -2.0f, 2.5f}) {
      context = "pow isa " + std::to_string(static_cast<int>(isa));
      Tensor a(DType::kF32, {37});
      Random random(5);
      a.FillUniform(&random, -3, 3);
      a.F(0) = INFINITY;
      a.F(1) = -INFINITY;
      a.F(2) = 0.0f;
      a.F(3) = NAN;
      Tensor b(DType::kF32, {1});
      b.F(0) = e;
      std::vector<double> want;
      for (int64_t i = 0; i < 37; ++i) {
        want.push_back(std::pow(static_cast<double>(a.F(i)), static_cast<double>(e)));
      }
      Tensor y(DType::kF32, {37});
      const BinaryArgs args = MakeBinaryArgs(BinaryFn::kPow, a.desc, b.desc, y.desc, Activation());
      Kernel kernel;
      Expect(SelectBinary(args, isa, &kernel), "no kernel");
      Run(kernel, &args, {a.data(), b.data(), y.data()}, BinaryItems(args), 0);
      ExpectNear(y, want, 1e-6, 0);
    }
  }
}

void TestBatchNormAndPRelu() {
  const Activation acts[] = {{UnaryFn::kNone, 0, 0},
                             {UnaryFn::kRelu, 0, 0},
                             {UnaryFn::kClip, 0, 6.0f},
                             {UnaryFn::kTanh, 0, 0}};
  for (const Isa isa : Isas()) {
    int n = 0;
    for (const auto& dims : std::vector<std::vector<int64_t>>{
             {3, 21}, {2, 5, 9}, {2, 3, 7, 7}, {1, 37, 1, 1}, {2, 3, 2, 3, 4}, {0, 3, 2, 2}}) {
      for (const int64_t padding : {0, 5}) {
        context = "batch_norm isa " + std::to_string(static_cast<int>(isa));
        Random random(3);
        const Activation& act = acts[n++ % 4];
        Tensor x(DType::kF32, dims, padding);
        Tensor scale(DType::kF32, {dims[1]});
        Tensor shift(DType::kF32, {dims[1]});
        Tensor y(DType::kF32, dims, padding / 2);
        x.FillUniform(&random, -3, 3);
        scale.FillUniform(&random, -2, 2);
        shift.FillUniform(&random, -1, 1);
        std::vector<double> want;
        for (int64_t i = 0; i < x.elements(); ++i) {
          const int64_t c = Unravel(i, x.desc.shape)[1];
          want.push_back(Activate(act, static_cast<double>(x.F(i)) * scale.F(c) + shift.F(c)));
        }
        const BatchNormArgs args = MakeBatchNormArgs(x.desc, y.desc, act);
        Kernel kernel;
        Expect(SelectBatchNorm(args, isa, &kernel) && kernel.isa == isa, "no kernel");
        Run(kernel, &args, {x.data(), scale.data(), shift.data(), y.data()}, BatchNormItems(args),
            0);
        ExpectNear(y, want, 2e-6, 1e-6);

        context = "prelu isa " + std::to_string(static_cast<int>(isa));
        std::vector<int64_t> slope_dims(dims.size() - 1, 1);
        slope_dims[0] = dims[1];
        for (const bool per_channel : {true, false}) {
          Tensor slope(DType::kF32, per_channel ? slope_dims : dims);
          slope.FillUniform(&random, -2, 2);
          want.clear();
          for (int64_t i = 0; i < x.elements(); ++i) {
            const double v = static_cast<double>(x.F(i));
            want.push_back(v < 0 ? v * AtBroadcast(slope, Unravel(i, x.desc.shape)) : v);
          }
          const PReluArgs prelu = MakePReluArgs(x.desc, slope.desc, y.desc);
          Expect(SelectPRelu(prelu, isa, &kernel) && kernel.isa == isa, "no kernel");
          Run(kernel, &prelu, {x.data(), slope.data(), y.data()}, PReluItems(prelu), 0);
          ExpectNear(y, want, 1e-6, 0);
        }
      }
    }
  }
}

}  // namespace
}  // namespace test
}  // namespace sparsert

int main() {
  using namespace sparsert::test;
  TestUnary();
  TestBinary();
  TestBatchNormAndPRelu();
  return Finish("kernels_elementwise_test");
}
