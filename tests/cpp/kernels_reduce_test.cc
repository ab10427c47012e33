// Reduce, Softmax, Pool and GlobalPool against double references on every ISA.
#include "kernel_harness.h"
#include "kernels/pool/pool.h"
#include "kernels/reduce/reduce.h"
#include "kernels/softmax/softmax.h"

namespace sparsert {
namespace test {
namespace {

using Dims = std::vector<int64_t>;

double Fold(ReduceFn fn, const std::vector<double>& v) {
  double sum = 0, abs = 0, squares = 0, product = 1, max = -INFINITY, min = INFINITY;
  bool nan = false;
  for (const double x : v) {
    sum += x;
    abs += std::fabs(x);
    squares += x * x;
    product *= x;
    max = std::fmax(max, x);
    min = std::fmin(min, x);
    nan = nan || std::isnan(x);
  }
  double exps = 0;
  const double shift = std::isfinite(max) ? max : 0;
  for (const double x : v) exps += std::exp(x - shift);
  switch (fn) {
    case ReduceFn::kSum:
      return sum;
    case ReduceFn::kMean:
      return sum / static_cast<double>(v.size());
    case ReduceFn::kMax:
      return nan ? NAN : max;
    case ReduceFn::kMin:
      return nan ? NAN : min;
    case ReduceFn::kProd:
      return product;
    case ReduceFn::kL1:
      return abs;
    case ReduceFn::kL2:
      return std::sqrt(squares);
    case ReduceFn::kSumSquare:
      return squares;
    case ReduceFn::kLogSum:
      return std::log(sum);
    default:
      return std::log(exps) + shift;
  }
}

void CheckReduce(const Dims& dims, const std::vector<bool>& axes, bool keepdims, ReduceFn fn,
                 int64_t padding, Isa isa, bool with_nan) {
  const int rank = static_cast<int>(dims.size());
  bool reduced[kMaxRank] = {};
  Dims y_dims;
  for (int d = 0; d < rank; ++d) {
    reduced[d] = axes[static_cast<size_t>(d)];
    if (!reduced[d]) y_dims.push_back(dims[static_cast<size_t>(d)]);
    if (reduced[d] && keepdims) y_dims.push_back(1);
  }
  Random random(dims.size() + 5);
  Tensor x(DType::kF32, dims, padding);
  Tensor y(DType::kF32, y_dims, padding / 2);
  // Products stay near one, sums have no cancellation for LogSum.
  x.FillUniform(&random,
                fn == ReduceFn::kProd     ? 0.97
                : fn == ReduceFn::kLogSum ? 0.1
                                          : -3.0,
                fn == ReduceFn::kProd ? 1.03 : 4.0);
  if (with_nan && x.elements() > 3) x.F(3) = NAN;
  std::vector<std::vector<double>> groups(static_cast<size_t>(y.elements()));
  for (int64_t i = 0; i < x.elements(); ++i) {
    Dims index = Unravel(i, x.desc.shape);
    Dims y_index;
    for (int d = 0; d < rank; ++d) {
      if (!reduced[d]) y_index.push_back(index[static_cast<size_t>(d)]);
      if (reduced[d] && keepdims) y_index.push_back(0);
    }
    groups[static_cast<size_t>(Ravel(y_index, y.desc.shape))].push_back(
        static_cast<double>(x.F(i)));
  }
  std::vector<double> want;
  for (const auto& group : groups) want.push_back(Fold(fn, group));
  const ReduceArgs args = MakeReduceArgs(fn, x.desc, reduced, y.desc);
  Kernel kernel;
  Expect(SelectReduce(args, isa, &kernel) && kernel.isa == isa, "no kernel");
  Run(kernel, &args, {x.data(), y.data()}, ReduceItems(args), 0);
  const double size = groups.empty() ? 1 : static_cast<double>(groups[0].size());
  ExpectNear(y, want, 5e-6, fn == ReduceFn::kSum ? 2e-6 * size : 2e-6);
}

void TestReduce() {
  const std::vector<Dims> shapes = {{37},         {5, 19},       {3, 1},      {2, 3, 17},
                                    {2, 5, 3, 7}, {1, 70, 1, 1}, {3, 130, 5}, {2, 3, 2, 4, 3},
                                    {9001},       {3, 1500},     {1500, 3},   {2, 0, 3},
                                    {1, 1, 1, 1}, {300, 3, 1, 5}};
  for (const Isa isa : Isas()) {
    for (const Dims& dims : shapes) {
      const int rank = static_cast<int>(dims.size());
      for (int mask = 0; mask < (1 << rank); ++mask) {
        std::vector<bool> axes;
        for (int d = 0; d < rank; ++d) axes.push_back((mask >> d & 1) != 0);
        for (int f = 0; f < static_cast<int>(ReduceFn::kCount); ++f) {
          // Long reductions differ only in how sums are split.
          if (MakeShape(dims).elements() > 2000 && f % 3 != 0) continue;
          context = "reduce fn " + std::to_string(f) + " rank " + std::to_string(rank) + " dim0 " +
                    std::to_string(dims[0]) + " mask " + std::to_string(mask) + " isa " +
                    std::to_string(static_cast<int>(isa));
          CheckReduce(dims, axes, (mask + f) % 2 == 0, static_cast<ReduceFn>(f), mask % 3 * 3, isa,
                      f == mask % 5);
        }
      }
    }
  }
}

void TestSoftmax() {
  for (const Isa isa : Isas()) {
    for (const Dims& dims : std::vector<Dims>{{1},
                                              {10},
                                              {1, 1000},
                                              {3, 37},
                                              {2, 21, 5, 7},
                                              {1, 1000, 1, 1},
                                              {2, 3, 19},
                                              {2, 3, 2, 5, 3},
                                              {2, 4999},
                                              {0, 4}}) {
      for (int axis = 0; axis < static_cast<int>(dims.size()); ++axis) {
        for (const bool log : {false, true}) {
          for (const int64_t padding : {0, 6}) {
            context = "softmax axis " + std::to_string(axis) + " of " +
                      std::to_string(dims.size()) + " isa " + std::to_string(static_cast<int>(isa));
            Random random(9);
            Tensor x(DType::kF32, dims, padding);
            Tensor y(DType::kF32, dims, padding / 2);
            x.FillUniform(&random, -60, 40);
            if (x.elements() > 30) x.F(7) = -INFINITY;
            const size_t a = static_cast<size_t>(axis);
            std::vector<double> want(static_cast<size_t>(x.elements()));
            for (int64_t i = 0; i < x.elements(); ++i) {
              Dims index = Unravel(i, x.desc.shape);
              if (index[a] != 0) continue;  // the first element of a slice stands for all of it
              std::vector<int64_t> slice;
              double max = -INFINITY;
              double sum = 0;
              for (; index[a] < dims[a]; ++index[a]) {
                slice.push_back(Ravel(index, x.desc.shape));
                max = std::fmax(max, static_cast<double>(x.F(slice.back())));
              }
              for (const int64_t k : slice) sum += std::exp(static_cast<double>(x.F(k)) - max);
              for (const int64_t k : slice) {
                const double v = static_cast<double>(x.F(k)) - max;
                want[static_cast<size_t>(k)] = log ? v - std::log(sum) : std::exp(v) / sum;
              }
            }
            const SoftmaxArgs args = MakeSoftmaxArgs(log, x.desc, axis, y.desc);
            Kernel kernel;
            Expect(SelectSoftmax(args, isa, &kernel) && kernel.isa == isa, "no kernel");
            Run(kernel, &args, {x.data(), y.data()}, SoftmaxItems(args), 0);
            ExpectNear(y, want, 1e-5, log ? 1e-5 : 1e-37);
          }
        }
      }
    }
  }
}

double PoolReference(const PoolArgs& args, const Tensor& x, int64_t plane, int64_t oh, int64_t ow) {
  const PoolWindow& w = args.window;
  double max = -INFINITY;
  double sum = 0;
  double count = 0;
  for (int64_t kh = 0; kh < w.kernel[0]; ++kh) {
    for (int64_t kw = 0; kw < w.kernel[1]; ++kw) {
      const int64_t h = oh * w.stride[0] - w.pad_begin[0] + kh * w.dilation[0];
      const int64_t c = ow * w.stride[1] - w.pad_begin[1] + kw * w.dilation[1];
      const bool inside = h >= 0 && h < w.in[0] && c >= 0 && c < w.in[1];
      const bool padded = h < w.in[0] + w.pad_end[0] && c < w.in[1] + w.pad_end[1];
      if (inside) {
        const double v = static_cast<double>(x.F((plane * w.in[0] + h) * w.in[1] + c));
        max = std::fmax(max, v);
        sum += v;
      }
      if (inside || (args.count_include_pad && padded)) count += 1;
    }
  }
  return args.fn == PoolFn::kMax ? max : sum / std::fmax(count, 1);
}

// Sets the size of y.
void SetPoolOut(PoolWindow* w, bool ceil) {
  for (int d = 0; d < 2; ++d) {
    const int64_t reach = (w->kernel[d] - 1) * w->dilation[d] + 1;
    const int64_t room = w->in[d] + w->pad_begin[d] + w->pad_end[d] - reach;
    w->out[d] = room < 0 ? 1 : (room + (ceil ? w->stride[d] - 1 : 0)) / w->stride[d] + 1;
    if (ceil && (w->out[d] - 1) * w->stride[d] >= w->in[d] + w->pad_begin[d] && w->out[d] > 1) {
      --w->out[d];
    }
  }
}

void CheckPool(const PoolWindow& w, bool flat, int c, Random* random) {
  const Dims x_dims = flat ? Dims{2, 3, w.in[1]} : Dims{2, 3, w.in[0], w.in[1]};
  const Dims y_dims = flat ? Dims{2, 3, w.out[1]} : Dims{2, 3, w.out[0], w.out[1]};
  Tensor x(DType::kF32, x_dims, c % 3 * 2, c % 4 * 9);
  x.FillUniform(random, -3, 3);
  for (const Isa isa : Isas()) {
    for (const PoolFn fn : {PoolFn::kMax, PoolFn::kAverage}) {
      for (const bool include : {false, true}) {
        context = "pool " + std::to_string(c) + " isa " + std::to_string(static_cast<int>(isa));
        Tensor y(DType::kF32, y_dims, c % 2 * 5, c % 5 * 7);
        const PoolArgs args = MakePoolArgs(fn, x.desc, y.desc, w, include);
        std::vector<double> want;
        for (int64_t p = 0; p < 6; ++p) {
          for (int64_t i = 0; i < w.out[0] * w.out[1]; ++i) {
            want.push_back(PoolReference(args, x, p, i / w.out[1], i % w.out[1]));
          }
        }
        Kernel kernel;
        Expect(SelectPool(args, isa, &kernel) && kernel.isa == isa, "no kernel");
        Run(kernel, &args, {x.data(), y.data()}, PoolItems(args), PoolScratch(args));
        ExpectNear(y, want, 1e-6, 1e-6);
      }
    }
  }
}

void TestPool() {
  Random random(1);
  for (int c = 0; c < 150; ++c) {
    PoolWindow w;
    const bool flat = c % 7 == 3;
    for (int d = 0; d < 2; ++d) {
      const bool unit = flat && d == 0;
      w.in[d] = unit ? 1 : random.Int(1, c % 3 == 0 ? 60 : 20);
      w.kernel[d] = unit ? 1 : random.Int(1, 5);
      w.stride[d] = unit ? 1 : random.Int(1, 4);
      w.dilation[d] = unit ? 1 : random.Int(1, 3);
      w.pad_begin[d] = unit ? 0 : random.Int(0, w.kernel[d] - 1);
      w.pad_end[d] = unit ? 0 : random.Int(0, w.kernel[d] - 1);
      if (c % 5 == 1 && !unit) {  // the common ones
        w.kernel[d] = 3;
        w.stride[d] = 2;
        w.dilation[d] = 1;
        w.pad_begin[d] = w.pad_end[d] = 1;
      }
    }
    SetPoolOut(&w, c % 4 == 2);
    CheckPool(w, flat, c, &random);
  }
}

// The windows of real networks at the widths where vectors and lines begin and end.
void TestCommonPool() {
  Random random(3);
  int c = 0;
  for (const int64_t width :
       {1, 2, 3, 7, 13, 15, 16, 17, 29, 31, 32, 33, 47, 63, 64, 65, 97, 131}) {
    for (const int64_t kernel : {2, 3, 4}) {
      for (const int64_t stride : {1, 2, 4}) {
        for (int pads = 0; pads < 8; ++pads) {
          PoolWindow w;
          for (int d = 0; d < 2; ++d) {
            w.in[d] = d == 1 ? width : random.Int(1, 11);
            w.kernel[d] = kernel;
            w.stride[d] = stride;
            w.dilation[d] = 1;
            w.pad_begin[d] = pads & 1;
            w.pad_end[d] = pads >> 1 & 1;
          }
          SetPoolOut(&w, (pads & 4) != 0);
          CheckPool(w, false, c++, &random);
        }
      }
    }
  }
}

// Dilated windows without any row of x between windows with some.
void TestPoolWithoutRows() {
  Random random(4);
  for (const int64_t stride : {1, 2, 3}) {
    PoolWindow w = {{2, 3}, {1, stride}, {3, 1}, {1, 1}, {1, 1}, {1, 40}, {}};
    w.in[0] = 2;
    w.pad_begin[0] = w.pad_end[0] = 2;
    SetPoolOut(&w, false);
    CheckPool(w, false, 0, &random);
  }
}

void TestGlobalPool() {
  for (const Isa isa : Isas()) {
    for (const Dims& dims : std::vector<Dims>{
             {2, 3, 7, 7}, {1, 5, 1, 1}, {3, 2, 131}, {2, 2, 3, 5, 7}, {1, 2, 113, 97}}) {
      for (const PoolFn fn : {PoolFn::kMax, PoolFn::kAverage}) {
        context = "global pool isa " + std::to_string(static_cast<int>(isa));
        Random random(2);
        Tensor x(DType::kF32, dims, 7, 11);
        x.FillUniform(&random, -5, -1);
        Dims y_dims(dims.size(), 1);
        y_dims[0] = dims[0];
        y_dims[1] = dims[1];
        Tensor y(DType::kF32, y_dims, 3, 5);
        std::vector<double> want;
        const int64_t plane = x.desc.plane();
        for (int64_t p = 0; p < dims[0] * dims[1]; ++p) {
          std::vector<double> values;
          for (int64_t i = 0; i < plane; ++i) {
            values.push_back(static_cast<double>(x.F(p * plane + i)));
          }
          want.push_back(Fold(fn == PoolFn::kMax ? ReduceFn::kMax : ReduceFn::kMean, values));
        }
        const GlobalPoolArgs args = MakeGlobalPoolArgs(fn, x.desc, y.desc);
        Kernel kernel;
        Expect(SelectGlobalPool(args, isa, &kernel) && kernel.isa == isa, "no kernel");
        Run(kernel, &args, {x.data(), y.data()}, GlobalPoolItems(args), 0);
        ExpectNear(y, want, 1e-6, 0);
      }
    }
  }
}

}  // namespace
}  // namespace test
}  // namespace sparsert

int main() {
  using namespace sparsert::test;
  TestReduce();
  TestSoftmax();
  TestPool();
  TestCommonPool();
  TestPoolWithoutRows();
  TestGlobalPool();
  return Finish("kernels_reduce_test");
}
