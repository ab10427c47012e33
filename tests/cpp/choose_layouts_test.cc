// Tests of plan/choose_layouts: which tensors are stored feature-major.
#include "plan/choose_layouts.h"

#include "kernels/loop.h"
#include "test_graph.h"

namespace sparsert {
namespace {

using K = AttrKey;

uint32_t Relu(TestGraph* t, uint32_t x) {
  return t->Begin(Op::kUnary).In(x).Fn(UnaryFn::kRelu).Out();
}

uint32_t Add(TestGraph* t, uint32_t a, uint32_t b) {
  return t->Begin(Op::kBinary).In(a).In(b).Fn(BinaryFn::kAdd).Out();
}

uint32_t Linear(TestGraph* t, uint32_t x, int64_t in, int64_t out) {
  const uint32_t w = t->Weights({out, in});
  return t->Begin(Op::kLinear).In(x).In(w).Out();
}

uint32_t Reduce(TestGraph* t, uint32_t x, int64_t axis) {
  const uint32_t axes = t->IntVector({axis});
  return t->Begin(Op::kReduce).In(x).In(axes).Fn(ReduceFn::kMean).Out();
}

void Expect(int line, TestGraph* t, std::initializer_list<uint32_t> chosen,
            std::initializer_list<uint32_t> others) {
  Must(t->Infer());
  Array<bool> feature_major(&kAllocator);
  Must(ChooseLayouts(t->graph, t->table, &feature_major));
  for (const bool wanted : {true, false}) {
    for (const uint32_t tensor : wanted ? chosen : others) {
      ++checks;
      if (feature_major[tensor] == wanted) continue;
      ++failures;
      fprintf(stderr, "line %d: tensor %u is %sfeature-major\n", line, tensor,
              wanted ? "not " : "");
    }
  }
}

#define EXPECT_CHOSEN(...) Expect(__LINE__, __VA_ARGS__)

void TestGroups() {
  {  // a norm and two products: one group up to the Transpose on either side
    TEST_GRAPH(t);
    const uint32_t s = Relu(&t, t.Input({1, 6, 5, 5}));
    const uint32_t h = t.Begin(Op::kTranspose).In(s).Attribute(K::k_perm, {0, 2, 3, 1}).Out();
    const uint32_t mean = Reduce(&t, h, 3);
    const uint32_t d = Add(&t, h, mean);
    const uint32_t g = Add(&t, d, t.Weights({6}));
    const uint32_t u = Linear(&t, g, 6, 9);
    const uint32_t e = Relu(&t, u);
    const uint32_t m = Linear(&t, e, 9, 6);
    const uint32_t b = t.Begin(Op::kTranspose).In(m).Attribute(K::k_perm, {0, 3, 1, 2}).Out();
    Relu(&t, b);
    EXPECT_CHOSEN(&t, {h, mean, d, g, u, e, m}, {s, b});
  }
  {  // what is reduced over rows, and all that is added to it, keeps its rows
    TEST_GRAPH(t);
    const uint32_t x = Relu(&t, t.Input({1, 25, 6}));
    const uint32_t u = Linear(&t, x, 6, 9);
    const uint32_t over_rows = Reduce(&t, u, 1);
    const uint32_t d = Add(&t, u, over_rows);
    const uint32_t m = Linear(&t, d, 9, 6);
    const uint32_t e = Relu(&t, m);
    const uint32_t o = Linear(&t, e, 6, 6);
    Relu(&t, o);
    EXPECT_CHOSEN(&t, {m, e}, {u, over_rows, d, o});
  }
  {  // few columns, several images with few, no product, a graph output
    for (const Ints& shape : {Ints{1, 15, 6}, Ints{2, 63, 6}}) {
      TEST_GRAPH(t);
      const uint32_t x = Relu(&t, t.Input(shape));
      const uint32_t u = Linear(&t, x, 6, 9);
      Relu(&t, u);
      EXPECT_CHOSEN(&t, {}, {x, u});
    }
    TEST_GRAPH(t);
    const uint32_t x = t.Input({2, 64, 6});
    const uint32_t a = Relu(&t, x);
    const uint32_t b = Relu(&t, a);
    const uint32_t shape = t.IntVector({2, 384});
    t.Begin(Op::kReshape).In(b).In(shape).Out();
    const uint32_t c = Relu(&t, x);
    const uint32_t y = Linear(&t, c, 6, 9);
    EXPECT_CHOSEN(&t, {}, {x, a, b, c, y});
  }
  {  // planes whose channels are normalised: seen as columns, without a product
    TEST_GRAPH(t);
    const uint32_t s = Relu(&t, t.Input({1, 6, 5, 5}));
    const uint32_t h = t.Begin(Op::kTranspose).In(s).Attribute(K::k_perm, {0, 2, 3, 1}).Out();
    const uint32_t u = t.Begin(Op::kLayerNormalization).In(h).In(t.Weights({6})).Out();
    const uint32_t b = t.Begin(Op::kTranspose).In(u).Attribute(K::k_perm, {0, 3, 1, 2}).Out();
    const uint32_t rows = t.Begin(Op::kTranspose).In(b).Attribute(K::k_perm, {0, 2, 1, 3}).Out();
    Relu(&t, rows);
    EXPECT_CHOSEN(&t, {h, u}, {s, b, rows});
  }
  {  // columns counted otherwise share a layout, unless one of the two has to be row-major
    for (const bool rejects : {false, true}) {
      TEST_GRAPH(t);
      const uint32_t u = Linear(&t, t.Input({1, 30, 6}), 6, 9);
      const uint32_t grid = t.Begin(Op::kReshape).In(u).In(t.IntVector({1, 5, 6, 9})).Out();
      const uint32_t d = Add(&t, grid, t.Weights({9}));
      if (rejects) Reduce(&t, d, 1);
      const uint32_t line = t.Begin(Op::kReshape).In(d).In(t.IntVector({1, 30, 9})).Out();
      const uint32_t m = Linear(&t, line, 9, 6);
      Relu(&t, m);
      if (rejects) {
        EXPECT_CHOSEN(&t, {u}, {grid, d, line, m});
      } else {
        EXPECT_CHOSEN(&t, {u, grid, d, line}, {m});
      }
    }
  }
  for (const int64_t axis : {-1, 1}) {  // features side by side; columns behind columns
    TEST_GRAPH(t);
    const uint32_t u = Linear(&t, t.Input({1, 30, 6}), 6, 9);
    const uint32_t e = Linear(&t, t.Input({1, 30, 6}), 6, 9);
    const uint32_t c = t.Begin(Op::kConcat).In(u).In(e).Attribute(K::k_axis, axis).Out();
    const uint32_t m = Linear(&t, c, axis == 1 ? 9 : 18, 6);
    Relu(&t, m);
    if (axis == 1) {
      EXPECT_CHOSEN(&t, {}, {u, e, c, m});
    } else {
      EXPECT_CHOSEN(&t, {u, e, c}, {m});
    }
  }
  {  // a matrix: its rows are columns between products, not where others read them
    TEST_GRAPH(t);
    const uint32_t u = Linear(&t, t.Input({20, 6}), 6, 9);
    const uint32_t e = Add(&t, Relu(&t, u), t.Weights({9}));
    const uint32_t m = Linear(&t, e, 9, 6);
    const uint32_t mean = Reduce(&t, m, 1);
    const uint32_t o = Linear(&t, Add(&t, m, mean), 6, 6);
    const uint32_t p = Linear(&t, o, 6, 6);
    Relu(&t, p);
    EXPECT_CHOSEN(&t, {u, e, o}, {m, mean, p});
  }
  for (const int64_t rows : {15, 513}) {
    TEST_GRAPH(t);
    const uint32_t u = Linear(&t, t.Input({rows, 6}), 6, 9);
    const uint32_t m = Linear(&t, u, 9, 6);
    Relu(&t, m);
    EXPECT_CHOSEN(&t, {}, {u, m});
  }
}

void TestDescs() {
  TensorDesc desc = FeatureMajorDesc(MakeShape({2, 3, 5, 7}));
  const int64_t strides[] = {112, 5, 1, 16};
  for (int d = 0; d < 4; ++d) {
    ++checks;
    failures += desc.strides[d] == strides[d] ? 0 : 1;
  }
  ++checks;
  failures += IsFeatureMajor(desc) && !IsPlanes(desc) && StorageBytes(desc) == 896 ? 0 : 1;
  const TensorDesc matrix = FeatureMajorDesc(MakeShape({17, 7}));
  ++checks;
  failures += matrix.strides[0] == 1 && matrix.strides[1] == 32 && StorageBytes(matrix) == 896 &&
                      ColumnsOf(matrix.shape) == 17
                  ? 0
                  : 1;
  TensorDesc planes = PlainDesc(DType::kF32, MakeShape({2, 3, 5, 7}));
  ++checks;
  failures += IsPlanes(planes) && !IsFeatureMajor(planes) ? 0 : 1;
  // Loops walk the columns in their rows, whatever the order of dimensions.
  const int64_t broadcast[] = {0, 0, 0, 1};
  const Loop<2> loop = MakeLoop<2>(desc.shape, {desc.strides, broadcast}, true);
  ++checks;
  failures += loop.rank == 2 && loop.row == 15 && loop.row_strides[0] == 1 &&
                      loop.row_strides[1] == 0 && loop.dims[1] == 7 && loop.strides[1][1] == 1
                  ? 0
                  : 1;
}

}  // namespace
}  // namespace sparsert

int main() {
  sparsert::TestGroups();
  sparsert::TestDescs();
  return sparsert::Summary();
}
