// Shapes of the ops that find, pick or scatter elements: expected results and errors.
#include "graph/plan_inputs.h"
#include "test_graph.h"

namespace sparsert {
namespace {

using K = AttrKey;
constexpr DType kI64 = DType::kI64;
constexpr DType kBool = DType::kBool;
constexpr StatusCode kShapeError = StatusCode::kShape;
constexpr StatusCode kUnsupportedError = StatusCode::kUnsupported;

void TestAlongAnAxis() {
  {
    TEST_GRAPH(t);
    t.Begin(Op::kArgMax).In(t.Input({2, 3, 4})).Attribute(K::k_axis, int64_t{-2});
    t.ExpectShape(t.Out(), {2, 1, 4}, kI64);
  }
  {
    TEST_GRAPH(t);
    t.Begin(Op::kArgMin).In(t.Input({2, 3})).Attribute(K::k_keepdims, int64_t{0});
    t.ExpectShape(t.Out(), {3}, kI64);
  }
  {
    TEST_GRAPH(t);
    t.Begin(Op::kArgMax).In(t.Input({2, 3}, kBool)).Out();
    t.ExpectError(kUnsupportedError, "expected a number");
  }
  {
    TEST_GRAPH(t);
    t.Begin(Op::kArgMax).In(t.Input({2, 3})).Attribute(K::k_axis, int64_t{2}).Out();
    t.ExpectError(kShapeError, "axis");
  }
  {
    TEST_GRAPH(t);
    t.Begin(Op::kTopK).In(t.Input({2, 7})).In(t.IntVector({3}));
    const uint32_t y = t.Out(2);
    t.ExpectShape(y, {2, 3});
    t.ExpectShape(y + 1, {2, 3}, kI64);
  }
  for (const int64_t k : {int64_t{8}, int64_t{-1}}) {
    TEST_GRAPH(t);
    t.Begin(Op::kTopK).In(t.Input({2, 7})).In(t.IntVector({k})).Out();
    t.ExpectError(kShapeError, "has 7 elements");
  }
  {
    TEST_GRAPH(t);
    t.Begin(Op::kTopK).In(t.Input({2, 7})).In(t.IntVector({1, 2})).Out();
    t.ExpectError(kShapeError, "must be one value");
  }
  {
    TEST_GRAPH(t);
    t.Begin(Op::kTopK).In(t.Input({2, 7})).In(t.Input({1}, kI64)).Out();
    t.ExpectError(kUnsupportedError, "depends on the values");
  }
  {
    TEST_GRAPH(t);
    t.Begin(Op::kCumSum).In(t.Input({2, 7})).In(t.Scalar(-1));
    t.ExpectShape(t.Out(), {2, 7});
  }
  {
    TEST_GRAPH(t);
    t.Begin(Op::kCumProd).In(t.Input({2, 7})).In(t.Scalar(2)).Out();
    t.ExpectError(kShapeError, "axis");
  }
  {
    TEST_GRAPH(t);
    t.Begin(Op::kTrilu).In(t.Input({7})).Out();
    t.ExpectError(kShapeError, "rank 2 or more");
  }
  {
    TEST_GRAPH(t);
    t.Begin(Op::kOneHot).In(t.Input({2, 3}, kI64)).In(t.Scalar(5)).In(t.Floats({0, 1}));
    t.ExpectShape(t.Attribute(K::k_axis, int64_t{0}).Out(), {5, 2, 3});
  }
  {
    TEST_GRAPH(t);
    t.Begin(Op::kOneHot).In(t.Input({2}, kI64)).In(t.Scalar(-5)).In(t.Floats({0, 1})).Out();
    t.ExpectError(kShapeError, "depth is -5");
  }
  {
    TEST_GRAPH(t);
    t.Begin(Op::kOneHot).In(t.Input({2}, kI64)).In(t.Scalar(5)).In(t.Floats({0, 1, 2})).Out();
    t.ExpectError(kShapeError, "must be off and on");
  }
}

void TestPlaces() {
  {
    TEST_GRAPH(t);
    t.Begin(Op::kGatherElements).In(t.Input({4, 5})).In(t.Input({9, 3}, kI64));
    t.ExpectShape(t.Out(), {9, 3});
  }
  for (const Ints& shape : {Ints{4, 6}, Ints{4}, Ints{4, 5, 1}}) {
    TEST_GRAPH(t);
    t.Begin(Op::kGatherElements).In(t.Input({4, 5})).In(t.Input(shape, kI64)).Out();
    t.ExpectError(kShapeError, "does not fit");
  }
  {
    TEST_GRAPH(t);
    t.Begin(Op::kGatherElements).In(t.Input({4, 5})).In(t.Input({4, 5})).Out();
    t.ExpectError(kShapeError, "expected int64 or int32");
  }
  {
    TEST_GRAPH(t);
    t.Begin(Op::kGatherND).In(t.Input({4, 5, 6})).In(t.Input({7, 2}, kI64));
    t.ExpectShape(t.Out(), {7, 6});
  }
  {
    TEST_GRAPH(t);
    t.Begin(Op::kGatherND).In(t.Input({4, 5, 6})).In(t.Input({4, 7, 1}, kI64));
    t.ExpectShape(t.Attribute(K::k_batch_dims, int64_t{1}).Out(), {4, 7, 6});
  }
  for (const Ints& shape : {Ints{7, 4}, Ints{7, 0}, Ints{}}) {
    TEST_GRAPH(t);
    t.Begin(Op::kGatherND).In(t.Input({4, 5, 6})).In(t.IntsTensor({}, shape)).Out();
    t.ExpectError(kShapeError, "");
  }
  {
    TEST_GRAPH(t);
    t.Begin(Op::kGatherND).In(t.Input({4, 5})).In(t.Input({3, 1}, kI64));
    t.Attribute(K::k_batch_dims, int64_t{1}).Out();
    t.ExpectError(kShapeError, "does not fit");
  }
  {
    TEST_GRAPH(t);
    t.Begin(Op::kScatterElements).In(t.Input({4, 5})).In(t.Input({2, 3}, kI64));
    t.ExpectShape(t.In(t.Input({2, 3})).Out(), {4, 5});
  }
  {
    TEST_GRAPH(t);
    t.Begin(Op::kScatterElements).In(t.Input({4, 5})).In(t.Input({2, 3}, kI64));
    t.In(t.Input({2, 2})).Out();
    t.ExpectError(kShapeError, "does not fit");
  }
  {
    TEST_GRAPH(t);
    t.Begin(Op::kScatterElements).In(t.Input({4, 5})).In(t.Input({2, 3}, kI64));
    t.In(t.Input({2, 3}, kI64)).Out();
    t.ExpectError(kShapeError, "expected float32");
  }
  {
    TEST_GRAPH(t);
    t.Begin(Op::kScatterND).In(t.Input({4, 5, 6})).In(t.Input({7, 2}, kI64));
    t.ExpectShape(t.In(t.Input({7, 6})).Out(), {4, 5, 6});
  }
  {
    TEST_GRAPH(t);
    t.Begin(Op::kScatterND).In(t.Input({4, 5, 6})).In(t.Input({7, 2}, kI64));
    t.In(t.Input({7, 5})).Out();
    t.ExpectError(kShapeError, "does not fit");
  }
  {
    TEST_GRAPH(t);
    t.Begin(Op::kScatterND).In(t.Input({4}, kBool)).In(t.Input({2, 1}, kI64));
    t.In(t.Input({2}, kBool)).Attribute(K::k_reduction, int64_t{1}).Out();
    t.ExpectError(kUnsupportedError, "expected a number");
  }
}

void TestTileAndBitCast() {
  {
    TEST_GRAPH(t);
    t.Begin(Op::kTile).In(t.Input({2, 3})).In(t.IntVector({1, 4}));
    t.ExpectShape(t.Out(), {2, 12});
  }
  {
    TEST_GRAPH(t);
    t.Begin(Op::kTile).In(t.Input({2, 3})).In(t.IntVector({1, 0}));
    t.ExpectShape(t.Out(), {2, 0});
  }
  for (const Ints& repeats : {Ints{1}, Ints{1, -1}, Ints{int64_t{1} << 40, 1}}) {
    TEST_GRAPH(t);
    t.Begin(Op::kTile).In(t.Input({2, 3})).In(t.IntVector(repeats)).Out();
    t.ExpectError(kShapeError, "");
  }
  {
    TEST_GRAPH(t);
    t.Begin(Op::kTile).In(t.Input({1, 1, 1, 1, 2})).In(t.IntVector({2, 2, 2, 2, 2})).Out();
    t.ExpectError(kUnsupportedError, "too many dimensions");
  }
  {
    TEST_GRAPH(t);
    t.Begin(Op::kBitCast).In(t.Input({2, 3})).Attribute(K::k_to, int64_t{6});
    t.ExpectShape(t.Out(), {2, 3}, DType::kI32);
  }
  for (const int64_t to : {int64_t{7}, int64_t{16}, int64_t{-1}}) {
    TEST_GRAPH(t);
    t.Begin(Op::kBitCast).In(t.Input({2, 3})).Attribute(K::k_to, to).Out();
    t.ExpectError(kUnsupportedError, "cannot see");
  }
}

void Check(bool holds, const char* what) {
  ++checks;
  if (holds) return;
  ++failures;
  printf("FAIL %s\n", what);
}

// Inputs that a plan depends on, through arithmetic; what is only data is none.
void TestPlanInputs() {
  TEST_GRAPH(t);
  const uint32_t x = t.Input({2, 3});
  const uint32_t rows = t.Input({1}, kI64);
  const uint32_t matrix = t.Declared({1, 1}, {1, 1});
  t.graph.tensors[matrix].dtype = kI64;
  const uint32_t unused = t.Input({1}, kI64);
  t.Begin(Op::kBinary).In(rows).In(t.IntVector({1})).Fn(BinaryFn::kAdd);
  const uint32_t sum = t.Out();
  t.Begin(Op::kBinary).In(unused).In(unused).Fn(BinaryFn::kAdd).Out();
  t.Begin(Op::kSqueeze).In(matrix).In(t.IntVector({0}));
  const uint32_t flat = t.Out();
  t.Begin(Op::kConcat).In(sum).In(flat).Attribute(K::k_axis, int64_t{0});
  const uint32_t shape = t.Out();
  t.Begin(Op::kReshape).In(x).In(shape).Out();
  t.ExpectError(kUnsupportedError, "depends on the values");
  Array<bool> needed(t.graph.tensors.allocator());
  Check(FindPlanInputs(t.graph, &needed).ok() && needed.size() == 4, "no answer");
  Check(!needed[0] && needed[1] && !needed[2] && !needed[3], "the wrong inputs");
}

}  // namespace
}  // namespace sparsert

int main() {
  sparsert::TestAlongAnAxis();
  sparsert::TestPlaces();
  sparsert::TestTileAndBitCast();
  sparsert::TestPlanInputs();
  return sparsert::Summary();
}
