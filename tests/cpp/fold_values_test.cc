// Shape arithmetic: known values of every op that folds, and chains as exporters write them.
#include "test_graph.h"

namespace sparsert {
namespace {

using K = AttrKey;
constexpr DType kI64 = DType::kI64;
constexpr DType kI32 = DType::kI32;
constexpr StatusCode kShapeError = StatusCode::kShape;

void TestKnownValues() {
  {
    TEST_GRAPH(t);
    const uint32_t x = t.Input({2, 3, 4, 5});
    t.Begin(Op::kShape).In(x).Attribute(K::k_start, int64_t{-3}).Attribute(K::k_end, int64_t{-1});
    t.ExpectKnown(t.Out(), {3, 4}, {2});
  }
  {
    TEST_GRAPH(t);
    const uint32_t x = t.Input({2, 3});
    t.Begin(Op::kShape).In(x).Attribute(K::k_start, int64_t{5}).Attribute(K::k_end, int64_t{-9});
    t.ExpectKnown(t.Out(), {}, {0});
  }
  {
    TEST_GRAPH(t);
    t.ExpectKnown(t.Begin(Op::kSize).In(t.Input({2, 3, 4})).Out(), {24}, {});
  }
  {
    TEST_GRAPH(t);
    const uint32_t c = t.IntsTensor({1, 2, 3, 4, 5, 6}, {2, 3});
    const uint32_t a = t.Begin(Op::kTranspose).In(c).Out();
    const uint32_t b = t.Begin(Op::kFlatten).In(c).Attribute(K::k_axis, int64_t{0}).Out();
    const uint32_t d = t.Begin(Op::kReshape).In(c).In(t.IntVector({3, -1})).Out();
    t.Begin(Op::kGather).In(c).In(t.IntVector({-1, 0})).Attribute(K::k_axis, int64_t{1});
    const uint32_t e = t.Out();
    t.Begin(Op::kSlice).In(c).In(t.IntVector({-1, 1})).In(t.IntVector({-9, 3})).Skip();
    const uint32_t f = t.In(t.IntVector({-1, 1})).Out();
    const uint32_t g = t.Begin(Op::kConcat).In(c).In(c).Attribute(K::k_axis, int64_t{1}).Out();
    const uint32_t h = t.Begin(Op::kSplit).In(c).Attribute(K::k_axis, int64_t{1}).Out(3);
    t.Begin(Op::kReduce).In(c).In(t.IntVector({0})).Fn(ReduceFn::kProd);
    const uint32_t i = t.Attribute(K::k_keepdims, int64_t{0}).Out();
    const uint32_t j = t.Begin(Op::kReduce).In(c).In(t.IntVector({1})).Fn(ReduceFn::kSum).Out();
    const uint32_t k = t.Begin(Op::kReduce).In(c).Fn(ReduceFn::kMax).Out();
    const uint32_t l = t.Begin(Op::kReduce).In(c).Fn(ReduceFn::kMin).Out();
    const uint32_t m = t.Begin(Op::kReduce).In(c).Fn(ReduceFn::kMean).Out();
    const uint32_t n = t.Begin(Op::kSlice).In(c).In(t.IntVector({2})).In(t.IntVector({1})).Out();
    t.ExpectKnown(c, {1, 2, 3, 4, 5, 6}, {2, 3});
    t.ExpectKnown(a, {1, 4, 2, 5, 3, 6}, {3, 2});
    t.ExpectKnown(b, {1, 2, 3, 4, 5, 6}, {1, 6});
    t.ExpectKnown(d, {1, 2, 3, 4, 5, 6}, {3, 2});
    t.ExpectKnown(e, {3, 1, 6, 4}, {2, 2});
    t.ExpectKnown(f, {5, 6, 2, 3}, {2, 2});
    t.ExpectKnown(g, {1, 2, 3, 1, 2, 3, 4, 5, 6, 4, 5, 6}, {2, 6});
    t.ExpectKnown(h + 1, {2, 5}, {2, 1});
    t.ExpectKnown(h + 2, {3, 6}, {2, 1});
    t.ExpectKnown(i, {4, 10, 18}, {3});
    t.ExpectKnown(j, {6, 15}, {2, 1});
    t.ExpectKnown(k, {6}, {1, 1});
    t.ExpectKnown(l, {1}, {1, 1});
    t.ExpectUnknown(m);
    t.ExpectKnown(n, {}, {0, 3});
  }
  {
    TEST_GRAPH(t);
    const uint32_t c = t.IntVector({1, 2, 3});
    const uint32_t a = t.Begin(Op::kUnsqueeze).In(c).In(t.IntVector({0})).Out();
    const uint32_t b = t.Begin(Op::kSqueeze).In(a).Out();
    const uint32_t d = t.Begin(Op::kExpand).In(c).In(t.IntVector({2, 1})).Out();
    const uint32_t e = t.Begin(Op::kIdentity).In(d).Out();
    t.ExpectKnown(a, {1, 2, 3}, {1, 3});
    t.ExpectKnown(b, {1, 2, 3}, {3});
    t.ExpectKnown(e, {1, 2, 3, 1, 2, 3}, {2, 3});
  }
  struct BinaryCase {
    BinaryFn fn;
    DType dtype;
    int64_t a, b, out;
  };
  const BinaryCase binaries[] = {
      {BinaryFn::kAdd, kI64, 3, -5, -2},
      {BinaryFn::kAdd, kI64, INT64_MAX, 1, INT64_MIN},
      {BinaryFn::kAdd, kI32, INT32_MAX, 1, INT32_MIN},
      {BinaryFn::kSub, kI64, 3, -5, 8},
      {BinaryFn::kMul, kI64, INT64_MAX, 2, -2},
      {BinaryFn::kMul, kI32, 1 << 20, 1 << 20, 0},
      {BinaryFn::kDiv, kI64, -7, 2, -3},
      {BinaryFn::kDiv, kI64, INT64_MIN, -1, INT64_MIN},
      {BinaryFn::kDiv, kI32, INT32_MIN, -1, INT32_MIN},
      {BinaryFn::kPow, kI64, -3, 3, -27},
      {BinaryFn::kMin, kI64, 3, -5, -5},
      {BinaryFn::kMax, kI64, 3, -5, 3},
      {BinaryFn::kSub, DType::kU8, 3, 5, 254},
  };
  for (const BinaryCase& c : binaries) {
    TEST_GRAPH(t);
    t.Begin(Op::kBinary).In(t.Scalar(c.a, c.dtype)).In(t.Scalar(c.b, c.dtype)).Fn(c.fn);
    t.ExpectKnown(t.Out(), {c.out}, {}, c.dtype);
  }
  {
    TEST_GRAPH(t);
    t.Begin(Op::kBinary).In(t.IntsTensor({1, 2}, {2, 1})).In(t.IntVector({10, 20, 30}));
    t.ExpectKnown(t.Fn(BinaryFn::kMul).Out(), {10, 20, 30, 20, 40, 60}, {2, 3});
  }
  {
    TEST_GRAPH(t);
    t.Begin(Op::kBinary).In(t.Scalar(1)).In(t.Scalar(0)).Fn(BinaryFn::kDiv).Out();
    t.ExpectError(kShapeError, "divides 'tensor' [] by zero");
  }
  struct CastCase {
    DType from, to;
    int64_t value, out;
  };
  const CastCase casts[] = {
      {kI64, kI32, (int64_t{1} << 32) + 5, 5},
      {kI64, DType::kBool, 7, 1},
      {DType::kBool, kI64, 1, 1},
      {kI32, kI64, -4, -4},
      {kI64, DType::kU8, 257, 1},
      {kI64, DType::kI8, 200, -56},
      {DType::kU32, kI64, 0xffffffff, 0xffffffff},
      {DType::kI16, DType::kU16, -1, 65535},
  };
  for (const CastCase& c : casts) {
    TEST_GRAPH(t);
    t.Begin(Op::kCast).In(t.Scalar(c.value, c.from));
    const uint32_t y = t.Attribute(K::k_to, static_cast<int64_t>(c.to)).Out();
    t.ExpectKnown(y, {c.out}, {}, c.to);
  }
  {
    TEST_GRAPH(t);
    const uint32_t y = t.Begin(Op::kRange).In(t.Scalar(7)).In(t.Scalar(-2)).In(t.Scalar(-3)).Out();
    t.ExpectKnown(y, {7, 4, 1}, {3});
  }
  {
    TEST_GRAPH(t);
    const uint32_t y = t.Begin(Op::kRange).In(t.Scalar(7)).In(t.Scalar(9)).In(t.Scalar(-3)).Out();
    t.ExpectKnown(y, {}, {0});
  }
  {
    TEST_GRAPH(t);
    t.Begin(Op::kRange).In(t.Scalar(INT64_MIN)).In(t.Scalar(INT64_MAX)).In(t.Scalar(INT64_MAX));
    t.ExpectKnown(t.Out(), {INT64_MIN, -1, INT64_MAX - 1}, {3});
  }
  {
    TEST_GRAPH(t);
    t.Begin(Op::kRange).In(t.Scalar(INT64_MIN)).In(t.Scalar(INT64_MAX)).In(t.Scalar(1)).Out();
    t.ExpectError(kShapeError, "too large");
  }
  {
    TEST_GRAPH(t);
    t.Begin(Op::kRange).In(t.Scalar(1)).In(t.Scalar(2)).In(t.Scalar(0)).Out();
    t.ExpectError(kShapeError, "delta is 0");
  }
  {  // Too many values to keep: the shape alone.
    TEST_GRAPH(t);
    t.Begin(Op::kRange).In(t.Scalar(0)).In(t.Scalar(5000)).In(t.Scalar(1));
    const uint32_t y = t.Out();
    t.ExpectShape(y, {5000}, kI64);
    t.ExpectUnknown(y);
  }
  {
    TEST_GRAPH(t);
    t.Begin(Op::kConstantOfShape).In(t.IntVector({2, 2})).Attribute(K::k_value, int64_t{-7});
    t.ExpectKnown(t.Out(), {-7, -7, -7, -7}, {2, 2});
  }
  {
    TEST_GRAPH(t);
    t.Begin(Op::kConstantOfShape).In(t.IntVector({})).Attribute(K::k_value, int64_t{1});
    t.ExpectKnown(t.Out(1, DType::kBool), {1}, {}, DType::kBool);
  }
  {
    TEST_GRAPH(t);
    t.Begin(Op::kConstantOfShape).In(t.IntVector({2, 3})).FloatAttribute(K::k_value, 0.5f);
    const int64_t half = FloatToSlot(0.5f);
    t.ExpectKnown(t.Out(), {half, half, half, half, half, half}, {2, 3}, DType::kF32);
  }
}

// Chains as exporters write them.
void TestShapeChains() {
  {  // x.view(x.shape[0], -1)
    TEST_GRAPH(t);
    const uint32_t x = t.Input({3, 4, 5});
    const uint32_t shape = t.Begin(Op::kShape).In(x).Out();
    const uint32_t n = t.Begin(Op::kGather).In(shape).In(t.Scalar(0)).Out();
    const uint32_t n1 = t.Begin(Op::kUnsqueeze).In(n).In(t.IntVector({0})).Out();
    t.Begin(Op::kConcat).In(n1).In(t.IntVector({-1})).Attribute(K::k_axis, int64_t{0});
    const uint32_t target = t.Out();
    const uint32_t y = t.Begin(Op::kReshape).In(x).In(target).Out();
    t.ExpectKnown(n, {3}, {});
    t.ExpectKnown(target, {3, -1}, {2});
    t.ExpectShape(y, {3, 20});
    t.ExpectUnknown(y);
  }
  {  // Resize to floor(shape * 1.5), through floats.
    TEST_GRAPH(t);
    const uint32_t x = t.Input({1, 2, 5, 7});
    t.Begin(Op::kShape).In(x).Attribute(K::k_start, int64_t{2});
    const uint32_t shape = t.Out();
    const uint32_t real = t.Begin(Op::kCast).In(shape).Attribute(K::k_to, int64_t{1}).Out();
    t.Begin(Op::kBinary).In(real).In(t.Floats({1.5f, 1.5f})).Fn(BinaryFn::kMul);
    const uint32_t scaled = t.Out();
    const uint32_t floored = t.Begin(Op::kUnary).In(scaled).Fn(UnaryFn::kFloor).Out();
    const uint32_t sizes = t.Begin(Op::kCast).In(floored).Attribute(K::k_to, int64_t{7}).Out();
    t.Begin(Op::kResize).In(x).Skip().Skip().In(sizes).Attribute(K::k_axes, {2, 3});
    const uint32_t y = t.Out();
    t.ExpectKnown(sizes, {7, 10}, {2});
    t.ExpectShape(y, {1, 2, 7, 10});
    t.ExpectKnown(real, {FloatToSlot(5.0f), FloatToSlot(7.0f)}, {2}, DType::kF32);
  }
  {  // Scales computed as wanted / shape and concatenated with constants.
    TEST_GRAPH(t);
    const uint32_t x = t.Input({1, 2, 5, 7});
    t.Begin(Op::kShape).In(x).Attribute(K::k_start, int64_t{2});
    const uint32_t shape = t.Out();
    const uint32_t real = t.Begin(Op::kCast).In(shape).Attribute(K::k_to, int64_t{1}).Out();
    t.Begin(Op::kBinary).In(t.Floats({10, 21})).In(real).Fn(BinaryFn::kDiv);
    const uint32_t ratio = t.Out();
    t.Begin(Op::kConcat).In(t.Floats({1, 1})).In(ratio).Attribute(K::k_axis, int64_t{0});
    const uint32_t scales = t.Out();
    const uint32_t y = t.Begin(Op::kResize).In(x).Skip().In(scales).Out();
    t.ExpectShape(y, {1, 2, 10, 21});
  }
  {  // The values of an input are not known.
    TEST_GRAPH(t);
    const uint32_t x = t.Input({3}, kI64);
    const uint32_t y = t.Begin(Op::kBinary).In(x).In(t.Scalar(1)).Fn(BinaryFn::kAdd).Out();
    t.ExpectUnknown(y);
  }
}

}  // namespace
}  // namespace sparsert

int main() {
  sparsert::TestKnownValues();
  sparsert::TestShapeChains();
  return sparsert::Summary();
}
