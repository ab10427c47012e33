// MatMul, LayerNorm, Where, Compare and Gather at run time against references on every ISA.
#include "base/fault.h"
#include "kernel_harness.h"
#include "kernels/compare/compare.h"
#include "kernels/gather/gather.h"
#include "kernels/layer_norm/layer_norm.h"
#include "kernels/matmul/matmul.h"
#include "kernels/where/where.h"

namespace sparsert {
namespace test {
namespace {

using Dims = std::vector<int64_t>;

// [batch, m, k] x [batch or 1, k, n], either one stored transposed.
void CheckMatMul(int64_t batch, int64_t m, int64_t n, int64_t k, bool trans_a, bool trans_b,
                 bool share_b, int threads, Isa isa) {
  context = "matmul " + std::to_string(m) + "x" + std::to_string(n) + "x" + std::to_string(k) +
            (trans_a ? " a'" : "") + (trans_b ? " b'" : "") + " isa " +
            std::to_string(static_cast<int>(isa));
  Random random(static_cast<uint64_t>(m * 31 + n * 7 + k));
  Tensor a(DType::kF32, trans_a ? Dims{batch, k, m} : Dims{batch, m, k}, 5);
  Tensor b(DType::kF32, trans_b ? Dims{share_b ? 1 : batch, n, k} : Dims{share_b ? 1 : batch, k, n},
           3);
  Tensor y(DType::kF32, {batch, m, n}, 7);
  a.FillUniform(&random, -1, 1);
  b.FillUniform(&random, -1, 1);
  MatMulArgs args = {};
  args.m = m;
  args.n = n;
  args.k = k;
  args.a_row = a.desc.strides[trans_a ? 2 : 1];
  args.a_col = a.desc.strides[trans_a ? 1 : 2];
  args.b_row = b.desc.strides[trans_b ? 2 : 1];
  args.b_col = b.desc.strides[trans_b ? 1 : 2];
  args.y_row = y.desc.strides[1];
  args.alpha = 0.75f;
  args.batch_rank = 1;
  args.batch_dims[0] = batch;
  args.batch_strides[0][0] = a.desc.strides[0];
  args.batch_strides[1][0] = share_b ? 0 : b.desc.strides[0];
  args.batch_strides[2][0] = y.desc.strides[0];
  ShareMatMul(threads, &args);
  Kernel kernel;
  Expect(SelectMatMul(args, isa, &kernel) && kernel.isa == isa, "no kernel");
  Run(kernel, &args, {a.data(), b.data(), y.data()}, MatMulItems(args), MatMulScratch(args));
  std::vector<double> want;
  for (int64_t p = 0; p < batch; ++p) {
    for (int64_t r = 0; r < m; ++r) {
      for (int64_t c = 0; c < n; ++c) {
        double sum = 0;
        for (int64_t i = 0; i < k; ++i) {
          const int64_t q = share_b ? 0 : p;
          const float left = a.F(trans_a ? (p * k + i) * m + r : (p * m + r) * k + i);
          const float right = b.F(trans_b ? (q * n + c) * k + i : (q * k + i) * n + c);
          sum += static_cast<double>(left) * static_cast<double>(right);
        }
        want.push_back(0.75 * sum);
      }
    }
  }
  ExpectNear(y, want, 1e-5, 1e-6 * std::sqrt(static_cast<double>(k + 1)));
}

void TestMatMul() {
  const std::vector<Dims> sizes = {{1, 1, 1},   {1, 64, 16},  {2, 3, 5},     {3, 17, 31},
                                   {4, 33, 7},  {5, 48, 64},  {6, 16, 2},    {7, 63, 13},
                                   {8, 65, 11}, {13, 128, 9}, {61, 127, 19}, {130, 40, 3},
                                   {5, 9, 513}, {2, 66, 1030}};
  for (const Isa isa : Isas()) {
    for (const Dims& s : sizes) {
      for (int mode = 0; mode < 8; ++mode) {
        CheckMatMul(mode % 3 + 1, s[0], s[1], s[2], mode % 2 != 0, mode / 2 % 2 != 0, mode >= 4,
                    mode % 2 == 0 ? 1 : 8, isa);
      }
    }
    CheckMatMul(2, 3, 4, 0, false, false, false, 1, isa);
    CheckMatMul(0, 3, 4, 5, false, false, false, 1, isa);
  }
}

void CheckLayerNorm(const Dims& dims, int first, bool centred, bool has_bias, int64_t padding,
                    bool columns, Isa isa) {
  Random random(dims.size() + 11);
  Tensor x(DType::kF32, dims, padding);
  Tensor y(DType::kF32, dims, padding);
  if (columns) {  // of rank 3: dimension 1 is contiguous
    for (Tensor* t : {&x, &y}) {
      t->desc.strides[1] = 1;
      t->desc.strides[2] = dims[1];
      t->desc.strides[0] = dims[1] * dims[2];
    }
  }
  x.FillUniform(&random, -2, 5);
  int64_t count = 1;
  for (size_t d = static_cast<size_t>(first); d < dims.size(); ++d) count *= dims[d];
  Tensor scale(DType::kF32, {count});
  Tensor bias(DType::kF32, {count});
  scale.FillUniform(&random, 0.5, 2);
  bias.FillUniform(&random, -1, 1);
  LayerNormArgs args;
  if (!MakeLayerNormArgs(centred, 1e-3f, x.desc, first, y.desc, &args)) {
    Expect(padding != 0, "a plain tensor fits");
    return;
  }
  Kernel kernel;
  Expect(SelectLayerNorm(args, isa, &kernel) && kernel.isa == isa, "no kernel");
  Run(kernel, &args, {x.data(), scale.data(), has_bias ? bias.data() : nullptr, y.data()},
      LayerNormItems(args), 0);
  std::vector<double> want;
  for (int64_t group = 0; count != 0 && group < x.elements() / count; ++group) {
    double mean = 0;
    double square = 0;
    for (int64_t i = 0; i < count; ++i) mean += static_cast<double>(x.F(group * count + i));
    mean = centred ? mean / static_cast<double>(count) : 0;
    for (int64_t i = 0; i < count; ++i) {
      const double d = static_cast<double>(x.F(group * count + i)) - mean;
      square += d * d;
    }
    const double factor = 1 / std::sqrt(square / static_cast<double>(count) + 1e-3);
    for (int64_t i = 0; i < count; ++i) {
      const double d = static_cast<double>(x.F(group * count + i)) - mean;
      want.push_back(d * factor * static_cast<double>(scale.F(i)) +
                     (has_bias ? static_cast<double>(bias.F(i)) : 0.0));
    }
  }
  ExpectNear(y, want, 5e-6, 5e-6);
}

void TestLayerNorm() {
  for (const Isa isa : Isas()) {
    for (const Dims& dims : std::vector<Dims>{{1},
                                              {37},
                                              {5, 1},
                                              {3, 768},
                                              {2, 21, 35},
                                              {2, 3, 1300},
                                              {2, 70, 9},
                                              {1, 1, 1},
                                              {2, 3, 2, 5},
                                              {0, 4}}) {
      const int rank = static_cast<int>(dims.size());
      for (int first = 0; first < rank; ++first) {
        for (int mode = 0; mode < 8; ++mode) {
          context = "layer norm rank " + std::to_string(rank) + " first " + std::to_string(first) +
                    " mode " + std::to_string(mode) + " isa " +
                    std::to_string(static_cast<int>(isa));
          const bool columns = mode >= 4 && rank == 3 && first == 2;
          CheckLayerNorm(dims, first, mode % 2 == 0, mode % 4 < 2, mode >= 4 || mode < 2 ? 0 : 6,
                         columns, isa);
        }
      }
    }
  }
}

#if !defined(SRT_ARM)
// In stages, also in place, neighbouring groups come out bit by bit as they do at once, where both
// take as many of them together. `far`: the first guess of their centres is.
void CheckNormStages(int64_t groups, int64_t count, bool has_bias, bool far, Isa isa) {
  Random random(static_cast<uint32_t>(groups + count));
  Tensor x(DType::kF32, {count, groups});
  x.FillUniform(&random, -2, 5);
  if (far) {
    for (int64_t i = 0; i < groups; i += 3) {
      for (const int64_t k : {int64_t{0}, count / 2}) {
        static_cast<float*>(x.data())[k * x.desc.strides[0] + i] = 1e6f;
      }
    }
  }
  Tensor y(DType::kF32, {count, groups});
  Tensor scale(DType::kF32, {count});
  Tensor bias(DType::kF32, {count});
  scale.FillUniform(&random, 0.5, 2);
  bias.FillUniform(&random, -1, 1);
  TensorDesc turned = x.desc;
  std::swap(turned.shape.dims[0], turned.shape.dims[1]);
  std::swap(turned.strides[0], turned.strides[1]);
  LayerNormArgs args;
  Kernel kernel;
  if (!MakeLayerNormArgs(true, 1e-3f, turned, 1, turned, &args) || args.rest.rows != 1 ||
      !SelectLayerNorm(args, isa, &kernel)) {
    return Fail("neighbouring groups do not fit");
  }
  const bool along_rows = args.along_rows;  // a single element, or a single group
  std::vector<float> sums(static_cast<size_t>(NormSumsFloats(args)), NAN);
  void* const shift = has_bias ? bias.data() : nullptr;
  Run(kernel, &args, {x.data(), scale.data(), shift, y.data()}, LayerNormItems(args), 0);
  if (along_rows) return;
  for (const NormStage stage : {NormStage::kSums, NormStage::kCentres, NormStage::kRows}) {
    args.stage = stage;
    const int64_t items = stage == NormStage::kCentres ? 1 : NormRuns(args);
    const std::vector<void*> io = {x.data(), scale.data(), shift, x.data(), sums.data()};
    if (items == 1) {
      kernel.run(&args, io.data(), 0, 1, nullptr);
    } else {
      Run(kernel, &args, io, items, 0);
    }
  }
  for (int64_t i = 0; i < count * groups; ++i) {
    const float got = x.F(i);
    const float want = y.F(i);
    if (memcmp(&got, &want, sizeof(got)) != 0) return Fail("stages differ from all at once");
  }
  Expect(true, "");
}

void TestNormStages() {
  for (const Isa isa : Isas()) {
    for (const int64_t groups : {2, 15, 16, 64, 70, 128}) {
      for (const int64_t count : {64, 65, 129, 300, 768}) {
        for (const bool has_bias : {false, true}) {
          context = "stages of " + std::to_string(groups) + " groups of " + std::to_string(count) +
                    " isa " + std::to_string(static_cast<int>(isa));
          CheckNormStages(groups, count, has_bias, false, isa);
          CheckNormStages(groups, count, has_bias, true, isa);
        }
      }
    }
  }
}
#endif

void TestWhere() {
  const DType types[] = {DType::kU8, DType::kF16, DType::kF32, DType::kI64};
  const std::vector<std::vector<Dims>> shapes = {{{2, 3, 5}, {2, 3, 5}, {2, 3, 5}},
                                                 {{5}, {2, 3, 5}, {3, 1}},
                                                 {{2, 1, 5}, {1}, {2, 3, 1}},
                                                 {{2, 3, 5}, {1}, {1}}};
  for (const DType dtype : types) {
    for (const auto& s : shapes) {
      context = "where of type " + std::to_string(static_cast<int>(dtype));
      Random random(3);
      Tensor c(DType::kBool, s[0]);
      Tensor a(dtype, s[1]);
      Tensor b(dtype, s[2]);
      Tensor y(dtype, {2, 3, 5}, 3);
      a.FillBytes(&random);
      b.FillBytes(&random);
      for (int64_t i = 0; i < c.elements(); ++i) c.At<uint8_t>(i) = random.Int(0, 1) != 0;
      const WhereArgs args = MakeWhereArgs(c.desc, a.desc, b.desc, y.desc);
      Kernel kernel;
      Expect(SelectWhere(args, Isa::kScalar, &kernel), "no kernel");
      Run(kernel, &args, {c.data(), a.data(), b.data(), y.data()}, WhereItems(args), 0);
      const auto at = [](const Tensor& t, const Dims& index) {
        Dims own(index.end() - t.desc.shape.rank, index.end());
        for (size_t d = 0; d < own.size(); ++d) {
          if (t.desc.shape.dims[d] == 1) own[d] = 0;
        }
        return t.Offset(Ravel(own, t.desc.shape));
      };
      const size_t size = DTypeSize(dtype);
      for (int64_t i = 0; i < y.elements(); ++i) {
        const Dims index = Unravel(i, y.desc.shape);
        const bool yes = static_cast<const uint8_t*>(c.data())[at(c, index)] != 0;
        const Tensor& from = yes ? a : b;
        Expect(memcmp(static_cast<const char*>(from.data()) +
                          size * static_cast<size_t>(at(from, index)),
                      static_cast<const char*>(y.data()) + size * static_cast<size_t>(y.Offset(i)),
                      size) == 0,
               "picks the right element");
      }
      y.ExpectCanaries();
    }
  }
}

template <typename T>
void CheckCompare(DType dtype, double lo, double hi) {
  Random random(4);
  Tensor a(dtype, {2, 3, 5}, 2);
  Tensor b(dtype, {3, 1});
  for (Tensor* t : {&a, &b}) {
    for (int64_t i = 0; i < t->elements(); ++i) {
      t->At<T>(i) = static_cast<T>(std::floor(random.Uniform(lo, hi)));
    }
  }
  for (int f = 0; f < static_cast<int>(CompareFn::kCount); ++f) {
    const CompareFn fn = static_cast<CompareFn>(f);
    if (f >= static_cast<int>(CompareFn::kAnd) && dtype != DType::kBool) continue;
    context =
        "compare " + std::to_string(f) + " of type " + std::to_string(static_cast<int>(dtype));
    Tensor y(DType::kBool, {2, 3, 5}, 1);
    const Tensor& second = fn == CompareFn::kNot ? a : b;
    const CompareArgs args = MakeCompareArgs(fn, a.desc, second.desc, y.desc);
    Kernel kernel;
    Expect(SelectCompare(args, Isa::kScalar, &kernel), "no kernel");
    Run(kernel, &args, {a.data(), b.data(), y.data()}, CompareItems(args), 0);
    for (int64_t i = 0; i < y.elements(); ++i) {
      const T l = a.At<T>(i);
      const T r = b.At<T>(i / 5 % 3);
      const bool want[] = {l == r,           l<r, l <= r, l> r,    l >= r, l != 0 && r != 0,
                           l != 0 || r != 0, (l != 0) != (r != 0), l == 0};
      Expect(y.At<uint8_t>(i) == static_cast<uint8_t>(want[f]), "compares");
    }
    y.ExpectCanaries();
  }
}

void TestCompare() {
  CheckCompare<float>(DType::kF32, -3, 3);
  CheckCompare<double>(DType::kF64, -3, 3);
  CheckCompare<int8_t>(DType::kI8, -3, 3);
  CheckCompare<uint8_t>(DType::kU8, 0, 4);
  CheckCompare<int16_t>(DType::kI16, -3, 3);
  CheckCompare<uint16_t>(DType::kU16, 0, 4);
  CheckCompare<int32_t>(DType::kI32, -3, 3);
  CheckCompare<uint32_t>(DType::kU32, 0, 4);
  CheckCompare<int64_t>(DType::kI64, -3, 3);
  CheckCompare<uint64_t>(DType::kU64, 0, 4);
  CheckCompare<uint8_t>(DType::kBool, 0, 2);
}

// Rows of a table, in either layout of the result; then with an index that names no row.
template <typename Index>
void CheckGather(DType index_type, bool feature_major) {
  context = "gather at run time";
  Random random(5);
  Tensor x(DType::kF32, {7, 5});
  x.FillUniform(&random, -1, 1);
  Tensor indices(index_type, {2, 3});
  const int64_t values[] = {0, -1, 6, 2, -7, 3};
  for (int64_t i = 0; i < 6; ++i) indices.At<Index>(i) = static_cast<Index>(values[i]);
  Tensor y(DType::kF32, {2, 3, 5});
  if (feature_major) {
    y.desc.strides[1] = 1;
    y.desc.strides[2] = 3;
  }
  const GatherArgs args = MakeGatherArgs(x.desc, 0, nullptr, indices.desc, y.desc);
  Kernel kernel;
  Expect(SelectGather(args, Isa::kScalar, &kernel), "no kernel");
  IndexFault fault;
  Run(kernel, &args, {x.data(), y.data(), indices.data(), &fault}, GatherItems(args), 0);
  std::vector<double> want;
  for (const int64_t v : values) {
    const int64_t row = v < 0 ? v + 7 : v;
    for (int64_t c = 0; c < 5; ++c) {
      want.push_back(static_cast<double>(x.F(row * 5 + c)));
    }
  }
  ExpectNear(y, want, 0, 0);
  Expect(!fault.reported, "a fault of good indices");
  for (const int64_t bad : {int64_t{7}, int64_t{-8}, int64_t{1} << 30}) {
    IndexFault found;
    indices.At<Index>(4) = static_cast<Index>(bad);
    Run(kernel, &args, {x.data(), y.data(), indices.data(), &found}, GatherItems(args), 0);
    Expect(found.reported && found.index == bad && found.size == 7, "the fault");
    y.ExpectCanaries();
  }
}

}  // namespace
}  // namespace test
}  // namespace sparsert

int main() {
  using namespace sparsert::test;
  using sparsert::DType;
  TestMatMul();
  TestLayerNorm();
#if !defined(SRT_ARM)
  TestNormStages();
#endif
  TestWhere();
  TestCompare();
  for (const bool feature_major : {false, true}) {
    CheckGather<int32_t>(DType::kI32, feature_major);
    CheckGather<int64_t>(DType::kI64, feature_major);
  }
  return Finish("kernels_matmul_test");
}
