// Windows and shapes of convolutions and pools: auto_pad, dilation, ceil_mode, output_shape.
#include "test_graph.h"

namespace sparsert {
namespace {

using K = AttrKey;
constexpr DType kI64 = DType::kI64;
constexpr StatusCode kShapeError = StatusCode::kShape;
constexpr StatusCode kUnsupportedError = StatusCode::kUnsupported;

// A window with these pads and output along the width.
Window Width(int64_t begin, int64_t end, int64_t out) {
  Window window;
  window.pad_begin[1] = begin;
  window.pad_end[1] = end;
  window.out[1] = out;
  return window;
}

void TestConv() {
  struct Case {
    Ints x, w, strides, pads, dilations;
    int64_t group, auto_pad;
    Ints out;  // empty: an error
  };
  const Case cases[] = {
      {{1, 3, 224, 224}, {64, 3, 7, 7}, {2, 2}, {3, 3, 3, 3}, {}, 1, 0, {1, 64, 112, 112}},
      {{2, 3, 9, 7}, {4, 3, 3, 3}, {}, {}, {}, 1, 0, {2, 4, 7, 5}},
      {{1, 3, 9, 7}, {4, 3, 3, 1}, {2, 3}, {0, 1, 2, 0}, {}, 1, 0, {1, 4, 5, 3}},
      {{1, 8, 9, 9}, {8, 1, 3, 3}, {}, {1, 1, 1, 1}, {}, 8, 0, {1, 8, 9, 9}},
      {{1, 8, 9, 9}, {6, 4, 3, 3}, {}, {2, 2, 2, 2}, {2, 2}, 2, 0, {1, 6, 9, 9}},
      {{1, 3, 10}, {5, 3, 4}, {3}, {}, {2}, 1, 0, {1, 5, 2}},
      {{1, 3, 10}, {5, 3, 4}, {3}, {1, 1}, {}, 1, 1, {1, 5, 4}},
      {{1, 3, 11, 6}, {5, 3, 4, 2}, {2, 2}, {}, {}, 1, 2, {1, 5, 6, 3}},
      {{1, 3, 4, 4}, {5, 3, 5, 5}, {}, {}, {}, 1, 0, {}},
      {{1, 3, 4, 4}, {5, 2, 3, 3}, {}, {}, {}, 1, 0, {}},
      {{1, 4, 4, 4}, {5, 2, 3, 3}, {}, {}, {}, 2, 0, {}},
      {{1, 3, 4, 4}, {5, 3, 3, 3}, {}, {}, {}, 0, 0, {}},
      {{1, 3, 4, 4}, {5, 3, 3, 3}, {0, 1}, {}, {}, 1, 0, {}},
      {{1, 3, 4, 4}, {5, 3, 3, 3}, {1}, {}, {}, 1, 0, {}},
      {{1, 3, 4, 4}, {5, 3, 3, 3}, {}, {1, 1, 1}, {}, 1, 0, {}},
      {{1, 3, 4, 4}, {5, 3, 3, 3}, {}, {-1, 0, 0, 0}, {}, 1, 0, {}},
      {{1, 3, 4, 4}, {5, 3, 3, 3}, {}, {}, {0, 1}, 1, 0, {}},
      {{1, 3, 4, 4}, {5, 3, 3}, {}, {}, {}, 1, 0, {}},
      {{3, 4}, {5, 3}, {}, {}, {}, 1, 0, {}},
  };
  for (const Case& c : cases) {
    TEST_GRAPH(t);
    const uint32_t x = t.Input(c.x);
    t.Begin(Op::kConv).In(x).In(t.Weights(c.w));
    if (c.strides.size() != 0) t.Attribute(K::k_strides, c.strides);
    if (c.pads.size() != 0) t.Attribute(K::k_pads, c.pads);
    if (c.dilations.size() != 0) t.Attribute(K::k_dilations, c.dilations);
    t.Attribute(K::k_group, c.group).Attribute(K::k_auto_pad, c.auto_pad);
    const uint32_t y = t.Out();
    if (c.out.size() != 0) {
      t.ExpectShape(y, c.out);
    } else {
      t.ExpectError(kShapeError, "node 'n0' (Conv): ");
    }
  }

  // auto_pad: the odd element goes to the end (upper) or to the beginning (lower).
  for (const int64_t mode : {1, 2}) {
    TEST_GRAPH(t);
    const uint32_t x = t.Input({1, 1, 7});
    t.Begin(Op::kConv).In(x).In(t.Weights({1, 1, 4})).Attribute(K::k_auto_pad, mode);
    const uint32_t y = t.Out();
    t.ExpectWindow(y, mode == 1 ? Width(1, 2, 7) : Width(2, 1, 7));
  }
  {  // A kernel smaller than the stride: no negative padding.
    TEST_GRAPH(t);
    const uint32_t x = t.Input({1, 1, 8});
    t.Begin(Op::kConv).In(x).In(t.Weights({1, 1, 1})).Attribute(K::k_auto_pad, int64_t{1});
    t.Attribute(K::k_strides, {4});
    const uint32_t y = t.Out();
    t.ExpectWindow(y, Width(0, 0, 2));
  }
  {  // Bias and residual.
    TEST_GRAPH(t);
    const uint32_t x = t.Input({2, 3, 5, 5});
    const uint32_t r = t.Input({2, 4, 3, 3});
    t.Begin(Op::kConv).In(x).In(t.Weights({4, 3, 3, 3})).In(t.Weights({4})).In(r);
    t.ExpectShape(t.Out(), {2, 4, 3, 3});
  }
  {
    TEST_GRAPH(t);
    const uint32_t x = t.Input({2, 3, 5, 5});
    const uint32_t r = t.Input({1, 4, 3, 3});
    t.Begin(Op::kConv).In(x).In(t.Weights({4, 3, 3, 3})).Skip().In(r).Out();
    t.ExpectError(kShapeError,
                  "residual 'tensor' [1,4,3,3] must have the output's shape [2,4,3,3]");
  }
  {
    TEST_GRAPH(t);
    const uint32_t x = t.Input({2, 3, 5, 5});
    t.Begin(Op::kConv).In(x).In(t.Weights({4, 3, 3, 3})).In(t.Weights({3})).Out();
    t.ExpectError(kShapeError, "bias 'tensor' [3] must have shape [4]");
  }
  {
    TEST_GRAPH(t);
    const uint32_t x = t.Input({1, 3, 5, 5});
    t.Begin(Op::kConv).In(x).In(t.Input({4, 3, 3, 3})).Out();
    t.ExpectError(kUnsupportedError, "must be a constant");
  }
  {
    TEST_GRAPH(t);
    const uint32_t x = t.Input({1, 3, 5, 5, 5});
    t.Begin(Op::kConv).In(x).In(t.Weights({4, 3, 3, 3, 3})).Out();
    t.ExpectError(kUnsupportedError, "rank");
  }
  {
    TEST_GRAPH(t);
    const uint32_t x = t.Input({1, 3, 5, 5}, kI64);
    t.Begin(Op::kConv).In(x).In(t.Weights({4, 3, 3, 3})).Out();
    t.ExpectError(kUnsupportedError, "int64, expected float32");
  }
  {
    TEST_GRAPH(t);
    const uint32_t x = t.Input({1, 4, 5, 5});
    t.Begin(Op::kConv).In(x).In(t.Weights({6, 3, 3, 3})).Out();
    t.ExpectError(kShapeError,
                  "input 'tensor' [1,4,5,5] has 4 channels, weights 'tensor' [6,3,3,3] with "
                  "group 1 need 3");
  }
}

void TestConvTranspose() {
  struct Case {
    int64_t in, kernel, stride, dilation, extra, wanted, auto_pad;
    Ints pads;
    int64_t begin, end, out;  // out 0: an error
  };
  const Case cases[] = {
      {3, 3, 1, 1, 0, 0, 0, {}, 0, 0, 5},     {3, 3, 2, 1, 1, 0, 0, {1, 1}, 1, 1, 6},
      {3, 3, 1, 2, 0, 0, 0, {}, 0, 0, 7},     {3, 3, 1, 1, 0, 4, 0, {}, 1, 0, 4},
      {3, 3, 1, 1, 0, 4, 1, {}, 0, 1, 4},     {3, 3, 1, 1, 0, 4, 2, {}, 1, 0, 4},
      {3, 3, 1, 1, 0, 4, 0, {1, 1}, 1, 0, 4}, {3, 3, 2, 1, 0, 0, 1, {}, 0, 1, 6},
      {3, 3, 2, 1, 0, 0, 2, {}, 1, 0, 6},     {3, 3, 4, 1, 0, 0, 1, {}, 0, 0, 11},
      {3, 3, 2, 1, 1, 6, 0, {}, 1, 1, 6},     {3, 3, 1, 1, 0, 0, 0, {2, 2}, 2, 2, 1},
      {4, 1, 3, 1, 0, 12, 0, {}, 0, 0, 12},   {4, 1, 3, 1, 0, 13, 0, {}, 0, 0, 0},
      {3, 3, 1, 1, 0, 9, 0, {}, 0, 0, 0},     {3, 3, 2, 1, 2, 0, 0, {}, 0, 0, 0},
      {3, 3, 1, 1, 0, 0, 0, {3, 2}, 0, 0, 0},
  };
  for (const Case& c : cases) {
    TEST_GRAPH(t);
    const uint32_t x = t.Input({2, 4, c.in});
    t.Begin(Op::kConvTranspose).In(x).In(t.Weights({4, 3, c.kernel}));
    t.Attribute(K::k_strides, {c.stride}).Attribute(K::k_dilations, {c.dilation});
    t.Attribute(K::k_output_padding, {c.extra}).Attribute(K::k_auto_pad, c.auto_pad);
    t.Attribute(K::k_group, int64_t{2});
    if (c.pads.size() != 0) t.Attribute(K::k_pads, c.pads);
    if (c.wanted != 0) t.Attribute(K::k_output_shape, {c.wanted});
    const uint32_t y = t.Out();
    if (c.out == 0) {
      t.ExpectError(kShapeError, "node 'n0' (ConvTranspose): ");
      continue;
    }
    t.ExpectShape(y, {2, 6, c.out});
    t.ExpectWindow(y, Width(c.begin, c.end, c.out));
  }
  {
    TEST_GRAPH(t);
    const uint32_t x = t.Input({1, 8, 7, 5});
    t.Begin(Op::kConvTranspose).In(x).In(t.Weights({8, 3, 4, 2})).In(t.Weights({3}));
    t.Attribute(K::k_strides, {2, 3}).Attribute(K::k_pads, {1, 0, 1, 1});
    t.ExpectShape(t.Out(), {1, 3, 14, 13});
  }
  {
    TEST_GRAPH(t);
    const uint32_t x = t.Input({1, 7, 7, 5});
    t.Begin(Op::kConvTranspose).In(x).In(t.Weights({8, 3, 4, 2})).Out();
    t.ExpectError(kShapeError, "need 8");
  }
}

void TestPools() {
  struct Case {
    int64_t in, kernel, stride, dilation, ceil_mode, auto_pad;
    Ints pads;
    int64_t begin, end, out;  // out 0: an error
  };
  const Case cases[] = {
      {7, 2, 2, 1, 0, 0, {}, 0, 0, 3},
      {7, 2, 2, 1, 1, 0, {}, 0, 0, 4},
      {112, 3, 2, 1, 0, 0, {1, 1}, 1, 1, 56},
      {112, 3, 2, 1, 1, 0, {}, 0, 0, 56},
      // The window that would start in the end padding does not exist.
      {4, 2, 2, 1, 1, 0, {1, 1}, 1, 1, 3},
      {5, 2, 3, 1, 1, 0, {1, 1}, 1, 1, 2},
      {2, 2, 3, 1, 1, 0, {0, 1}, 0, 1, 1},
      {3, 3, 2, 1, 1, 0, {2, 2}, 2, 2, 3},
      {2, 3, 2, 1, 1, 0, {}, 0, 0, 1},
      {9, 3, 2, 2, 0, 0, {}, 0, 0, 3},
      {9, 3, 3, 2, 1, 0, {}, 0, 0, 3},
      {7, 3, 2, 1, 0, 1, {}, 1, 1, 4},
      {8, 3, 2, 1, 0, 1, {}, 0, 1, 4},
      {8, 3, 2, 1, 0, 2, {}, 1, 0, 4},
      {8, 1, 2, 1, 0, 1, {}, 0, 0, 4},
      {7, 2, 1, 2, 0, 1, {}, 1, 1, 7},
      {2, 3, 2, 1, 0, 0, {}, 0, 0, 1},
      {1, 3, 2, 1, 0, 0, {}, 0, 0, 0},
      {1, 4, 3, 1, 1, 0, {}, 0, 0, 0},
      {3, 3, 2, 1, 0, 0, {3, 0}, 0, 0, 0},
      {1, 5, 1, 1, 0, 0, {}, 0, 0, 0},
  };
  for (const Op op : {Op::kMaxPool, Op::kAveragePool}) {
    for (const Case& c : cases) {
      TEST_GRAPH(t);
      const uint32_t x = t.Input({2, 5, c.in});
      t.Begin(op).In(x).Attribute(K::k_kernel_shape, {c.kernel});
      t.Attribute(K::k_strides, {c.stride}).Attribute(K::k_dilations, {c.dilation});
      t.Attribute(K::k_ceil_mode, c.ceil_mode).Attribute(K::k_auto_pad, c.auto_pad);
      if (c.pads.size() != 0) t.Attribute(K::k_pads, c.pads);
      const uint32_t y = t.Out();
      if (c.out == 0) {
        t.ExpectError(kShapeError, op == Op::kMaxPool ? "(MaxPool): " : "(AveragePool): ");
        continue;
      }
      t.ExpectShape(y, {2, 5, c.out});
      t.ExpectWindow(y, Width(c.begin, c.end, c.out));
    }
  }
  {
    TEST_GRAPH(t);
    const uint32_t x = t.Input({1, 64, 112, 56});
    t.Begin(Op::kMaxPool).In(x).Attribute(K::k_kernel_shape, {3, 2});
    t.Attribute(K::k_strides, {2, 2}).Attribute(K::k_pads, {1, 0, 1, 0});
    t.ExpectShape(t.Out(), {1, 64, 56, 28});
  }
  {
    TEST_GRAPH(t);
    t.Begin(Op::kMaxPool).In(t.Input({1, 2, 8, 8})).Out();
    t.ExpectError(kShapeError, "kernel_shape [] must have 2 values");
  }
  {
    TEST_GRAPH(t);
    t.Begin(Op::kMaxPool).In(t.Input({1, 2, 8, 8})).Attribute(K::k_kernel_shape, {2, 2}).Out(3);
    t.ExpectError(kUnsupportedError, "3 outputs");
  }
  {
    TEST_GRAPH(t);
    t.Begin(Op::kGlobalAveragePool).In(t.Input({2, 3, 4, 5, 6}));
    t.ExpectShape(t.Out(), {2, 3, 1, 1, 1});
  }
  {
    TEST_GRAPH(t);
    t.Begin(Op::kGlobalMaxPool).In(t.Input({2, 3})).Out();
    t.ExpectError(kShapeError, "rank 3 or more");
  }
}

}  // namespace
}  // namespace sparsert

int main() {
  sparsert::TestConv();
  sparsert::TestConvTranspose();
  sparsert::TestPools();
  return sparsert::Summary();
}
