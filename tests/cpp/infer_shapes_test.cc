// Shape inference: ops that compute, checks of the inputs, graphs that no converter writes.
#include "test_graph.h"

namespace sparsert {
namespace {

using K = AttrKey;
constexpr DType kI64 = DType::kI64;
constexpr StatusCode kShapeError = StatusCode::kShape;
constexpr StatusCode kUnsupportedError = StatusCode::kUnsupported;
constexpr StatusCode kFormatError = StatusCode::kModelFormat;

void TestCompute() {
  {
    TEST_GRAPH(t);
    const uint32_t x = t.Input({2, 7, 5});
    const uint32_t r = t.Input({2, 7, 3});
    t.Begin(Op::kLinear).In(x).In(t.Weights({3, 5})).In(t.Weights({3})).In(r);
    t.ExpectShape(t.Out(), {2, 7, 3});
  }
  {
    TEST_GRAPH(t);
    t.Begin(Op::kLinear).In(t.Input({5})).In(t.Weights({3, 5}));
    t.ExpectShape(t.Out(), {3});
  }
  {
    TEST_GRAPH(t);
    t.Begin(Op::kLinear).In(t.Input({2, 6})).In(t.Weights({3, 5})).Out();
    t.ExpectError(kShapeError, "the last dimension of input 'tensor' [2,6] must be 5");
  }
  {
    TEST_GRAPH(t);
    t.Begin(Op::kBatchNormalization).In(t.Input({2, 3, 4})).In(t.Weights({3})).In(t.Weights({3}));
    t.ExpectShape(t.Out(), {2, 3, 4});
  }
  {
    TEST_GRAPH(t);
    t.Begin(Op::kBatchNormalization).In(t.Input({2, 3})).In(t.Weights({3})).In(t.Weights({2}));
    t.Out();
    t.ExpectError(kShapeError, "shift 'tensor' [2] must have shape [3]");
  }
  {
    TEST_GRAPH(t);
    t.Begin(Op::kUnary).In(t.Input({2, 3})).Fn(UnaryFn::kRelu);
    t.ExpectShape(t.Out(), {2, 3});
  }
  {
    TEST_GRAPH(t);
    t.Begin(Op::kUnary).In(t.Input({2, 3})).Attribute(K::k_fn, int64_t{99}).Out();
    t.ExpectError(kFormatError, "unary function 99 is unknown");
  }
  {
    TEST_GRAPH(t);
    t.Begin(Op::kPRelu).In(t.Input({2, 3, 4, 4})).In(t.Weights({3, 1, 1}));
    t.ExpectShape(t.Out(), {2, 3, 4, 4});
  }
  {
    TEST_GRAPH(t);
    t.Begin(Op::kPRelu).In(t.Input({2, 3, 1, 4})).In(t.Weights({3, 4, 1})).Out();
    t.ExpectError(kShapeError, "does not broadcast");
  }
  struct Pair {
    Ints a, b, out;
  };
  const Pair pairs[] = {
      {{2, 3, 4}, {2, 3, 4}, {2, 3, 4}},
      {{2, 3, 4}, {4}, {2, 3, 4}},
      {{3, 1}, {2, 1, 5}, {2, 3, 5}},
      {{}, {2, 1}, {2, 1}},
      {{1}, {}, {1}},
      {{1, 64, 1, 1}, {8, 1, 5, 7}, {8, 64, 5, 7}},
  };
  for (const Pair& p : pairs) {
    TEST_GRAPH(t);
    t.Begin(Op::kBinary).In(t.Input(p.a)).In(t.Input(p.b)).Fn(BinaryFn::kMul);
    t.ExpectShape(t.Out(), p.out);
  }
  {
    TEST_GRAPH(t);
    t.Begin(Op::kBinary).In(t.Input({2, 3})).In(t.Input({2})).Fn(BinaryFn::kAdd).Out();
    t.ExpectError(kShapeError, "inputs 'tensor' [2,3] and 'tensor' [2] do not broadcast");
  }
  {
    TEST_GRAPH(t);
    t.Begin(Op::kBinary).In(t.Input({2})).In(t.Input({2}, kI64)).Fn(BinaryFn::kAdd).Out();
    t.ExpectError(kShapeError, "float32 and int64");
  }
  for (const int64_t axis : {-2, 0, 1}) {
    TEST_GRAPH(t);
    t.Begin(Op::kSoftmax).In(t.Input({2, 3})).Attribute(K::k_axis, axis);
    t.ExpectShape(t.Out(), {2, 3});
  }
  for (const int64_t axis : {-3, 2}) {
    TEST_GRAPH(t);
    t.Begin(Op::kLogSoftmax).In(t.Input({2, 3})).Attribute(K::k_axis, axis).Out();
    t.ExpectError(kShapeError, "out of range");
  }
  {
    TEST_GRAPH(t);
    t.Begin(Op::kCast).In(t.Input({2, 3})).Attribute(K::k_to, int64_t{7});
    t.ExpectShape(t.Out(), {2, 3}, kI64);
  }
  {
    TEST_GRAPH(t);
    t.Begin(Op::kCast).In(t.Input({2, 3})).Attribute(K::k_to, int64_t{8}).Out();
    t.ExpectError(kUnsupportedError, "dtype 8");
  }
}

void TestReduce() {
  struct Case {
    Ints axes;
    int64_t keepdims, noop;
    Ints out;
  };
  const Case cases[] = {
      {{1}, 1, 0, {2, 1, 4}}, {{-1, 0}, 0, 0, {3}},  {{}, 1, 0, {1, 1, 1}},
      {{}, 0, 0, {}},         {{}, 0, 1, {2, 3, 4}}, {{0, 1, 2}, 0, 0, {}},
  };
  for (const Case& c : cases) {
    for (const bool present : {false, true}) {
      if (!present && c.axes.size() != 0) continue;
      TEST_GRAPH(t);
      t.Begin(Op::kReduce).In(t.Input({2, 3, 4})).Fn(ReduceFn::kMean);
      if (present) t.In(t.IntVector(c.axes));
      t.Attribute(K::k_keepdims, c.keepdims).Attribute(K::k_noop_with_empty_axes, c.noop);
      t.ExpectShape(t.Out(), c.out);
    }
  }
  for (const Ints& axes : {Ints{3}, Ints{-4}, Ints{0, 0}}) {
    TEST_GRAPH(t);
    t.Begin(Op::kReduce).In(t.Input({2, 3, 4})).In(t.IntVector(axes)).Fn(ReduceFn::kMax).Out();
    t.ExpectError(kShapeError, "ax");
  }
}

void TestInputs() {
  {
    TEST_GRAPH(t);
    t.Begin(Op::kIdentity).In(t.Declared({8, 3}, {-1, 3}));
    t.ExpectShape(t.Out(), {8, 3});
  }
  {
    TEST_GRAPH(t);
    t.Begin(Op::kIdentity).In(t.Declared({8, 4}, {-1, 3})).Out();
    t.ExpectError(kShapeError, "input 'tensor' has shape [8,4], expected 3 in dimension 1");
  }
  {
    TEST_GRAPH(t);
    t.Begin(Op::kIdentity).In(t.Declared({8}, {-1, 3})).Out();
    t.ExpectError(kShapeError, "expected rank 2");
  }
  {
    TEST_GRAPH(t);
    t.Begin(Op::kIdentity).In(t.Input({0, 3})).Out();
    t.ExpectError(kShapeError, "input 'tensor' has a batch of size 0");
  }
  for (const int64_t second : {8, 9}) {
    TEST_GRAPH(t);
    const StrView symbol = {"batch", 5};
    Must(t.graph.symbols.push_back(symbol));
    const uint32_t a = t.Declared({8, 3}, {-1, 3});
    const uint32_t b = t.Declared({second}, {-1});
    t.Begin(Op::kIdentity).In(a).Out();
    const uint32_t y = t.Begin(Op::kIdentity).In(b).Out();
    if (second == 8) {
      t.ExpectShape(y, {8});
    } else {
      t.ExpectError(kShapeError, "dimension 0 ('batch') is 8 elsewhere");
    }
  }
  {
    TEST_GRAPH(t);
    t.Begin(Op::kIdentity).In(t.Input({int64_t{1} << 30, int64_t{1} << 30})).Out();
    t.ExpectError(kShapeError, "invalid shape");
  }
  {
    TEST_GRAPH(t);
    t.Begin(Op::kIdentity).In(t.Input({-1})).Out();
    t.ExpectError(kShapeError, "invalid shape [-1]");
  }
  {
    TEST_GRAPH(t);
    t.Begin(Op::kIdentity).In(t.Input({2})).Out();
    Must(t.Infer());
    ++checks;
    const Status status = InferShapes(t.graph, {nullptr, 0}, &t.table);
    if (status.code() != StatusCode::kInvalidArgument) ++failures;
  }
}

// Graphs that no converter writes.
void TestHostile() {
  for (int op = 0; op <= 34; ++op) {  // no inputs at all, and none present
    for (const int inputs : {0, 1, 5}) {
      TEST_GRAPH(t);
      t.Begin(static_cast<Op>(op));
      for (int i = 0; i < inputs; ++i) t.Skip();
      t.Out();
      ++checks;
      if (t.Infer().ok()) ++failures;
    }
  }
  for (int op = 1; op <= 63; ++op) {  // scalars, empty vectors and large values everywhere
    for (int variant = 0; variant < 4; ++variant) {
      for (int inputs = 1; inputs <= 5; ++inputs) {
        TEST_GRAPH(t);
        t.Begin(static_cast<Op>(op));
        const uint32_t small = variant == 0   ? t.Scalar(INT64_MIN)
                               : variant == 1 ? t.IntVector({})
                               : variant == 2 ? t.IntVector({INT64_MAX, INT64_MIN})
                                              : t.Weights({});
        for (int i = 0; i < inputs; ++i) t.In(i == 0 && variant < 3 ? t.Input({2, 3}) : small);
        for (const K key : {K::k_axis, K::k_num_outputs, K::k_to, K::k_start, K::k_end, K::k_group,
                            K::k_fn, K::k_mode}) {
          t.Attribute(key, variant == 2 ? INT64_MAX : (variant == 1 ? INT64_MIN : 0));
        }
        for (const K key : {K::k_strides, K::k_pads, K::k_dilations, K::k_kernel_shape, K::k_perm,
                            K::k_axes, K::k_output_shape, K::k_output_padding}) {
          t.Attribute(key, {INT64_MAX, INT64_MIN});
        }
        t.Out();
        ++checks;
        const Status status = t.Infer();  // must return, whatever it says
        if (!status.ok() && status.text()[0] == '\0') ++failures;
      }
    }
  }
  {  // A shape that grows without bound.
    TEST_GRAPH(t);
    uint32_t x = t.Input({1024, 1024});
    for (int i = 0; i < 25; ++i) {
      x = t.Begin(Op::kConcat).In(x).In(x).Attribute(K::k_axis, int64_t{0}).Out();
    }
    t.ExpectError(kShapeError, "too large");
  }
  {
    TEST_GRAPH(t);
    const uint32_t x = t.Input({1, 1, int64_t{1} << 39});
    t.Begin(Op::kConvTranspose).In(x).In(t.Weights({1, 1, 2}));
    t.Attribute(K::k_strides, {int64_t{1} << 30}).Out();
    t.ExpectError(kShapeError, "too large");
  }
  {
    TEST_GRAPH(t);
    const uint32_t x = t.Input({1, int64_t{1} << 20});
    const uint32_t y = t.Begin(Op::kLinear).In(x).In(t.Weights({2, int64_t{1} << 20})).Out();
    t.graph.tensors[x].is_constant = false;
    t.ExpectShape(y, {1, 2});
  }
  {  // Used before it is computed; computed twice.
    TEST_GRAPH(t);
    const uint32_t x = t.Input({1});
    t.Begin(Op::kIdentity).In(x + 2).Out();
    t.Begin(Op::kIdentity).In(x).Out();
    t.ExpectError(kFormatError, "used before it is computed");
  }
  {
    TEST_GRAPH(t);
    const uint32_t x = t.Input({1});
    t.Begin(Op::kIdentity).In(x).Out();
    Must(t.graph.nodes.push_back(t.graph.nodes[0]));
    t.ExpectError(kFormatError, "already has a value");
  }
  {
    TEST_GRAPH(t);
    t.Begin(Op::kIdentity).In(t.Weights({int64_t{1} << 40, 2})).Out();
    t.ExpectError(kFormatError, "constant 'tensor' has an invalid shape");
  }
  {
    TEST_GRAPH(t);
    t.Begin(Op::kUnary).In(t.Input({1})).Fn(UnaryFn::kRelu).Attribute(K::k_act, int64_t{99}).Out();
    t.ExpectError(kFormatError, "activation 99");
  }
}

}  // namespace
}  // namespace sparsert

int main() {
  sparsert::TestCompute();
  sparsert::TestReduce();
  sparsert::TestInputs();
  sparsert::TestHostile();
  return sparsert::Summary();
}
