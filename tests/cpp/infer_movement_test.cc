// Shapes of the ops that move data: expected results and errors.
#include "test_graph.h"

namespace sparsert {
namespace {

using K = AttrKey;
constexpr DType kI64 = DType::kI64;
constexpr DType kI32 = DType::kI32;
constexpr StatusCode kShapeError = StatusCode::kShape;
constexpr StatusCode kUnsupportedError = StatusCode::kUnsupported;
constexpr StatusCode kFormatError = StatusCode::kModelFormat;

void TestMovement() {
  {
    TEST_GRAPH(t);
    t.Begin(Op::kConcat).In(t.Input({2, 3, 4})).In(t.Input({2, 5, 4})).In(t.Weights({2, 1, 4}));
    t.ExpectShape(t.Attribute(K::k_axis, int64_t{-2}).Out(), {2, 9, 4});
  }
  {
    TEST_GRAPH(t);
    t.Begin(Op::kConcat).In(t.Input({2, 3})).In(t.Input({3, 3})).Attribute(K::k_axis, int64_t{1});
    t.Out();
    t.ExpectError(kShapeError, "in more than axis 1");
  }
  {
    TEST_GRAPH(t);
    t.Begin(Op::kConcat).In(t.Input({2})).In(t.Input({2}, kI64)).Attribute(K::k_axis, int64_t{0});
    t.Out();
    t.ExpectError(kShapeError, "int64");
  }
  {
    TEST_GRAPH(t);
    t.Begin(Op::kSplit).In(t.Input({2, 7})).In(t.IntVector({3, 0, 4}));
    const uint32_t y = t.Attribute(K::k_axis, int64_t{1}).Out(3);
    t.ExpectShape(y, {2, 3});
    t.ExpectShape(y + 1, {2, 0});
    t.ExpectShape(y + 2, {2, 4});
  }
  {
    TEST_GRAPH(t);
    t.Begin(Op::kSplit).In(t.Input({7})).Attribute(K::k_num_outputs, int64_t{3});
    const uint32_t y = t.Out(3);
    t.ExpectShape(y, {3});
    t.ExpectShape(y + 1, {3});
    t.ExpectShape(y + 2, {1});
  }
  for (const Ints& sizes : {Ints{3, 5}, Ints{3, 3}, Ints{8, -1}, Ints{3, 2, 2}}) {
    TEST_GRAPH(t);
    t.Begin(Op::kSplit).In(t.Input({7})).In(t.IntVector(sizes)).Out(2);
    t.ExpectError(kShapeError, "node 'n0' (Split): ");
  }
  {
    TEST_GRAPH(t);
    t.Begin(Op::kSplit).In(t.Input({5})).Attribute(K::k_num_outputs, int64_t{4}).Out(4);
    t.ExpectError(kShapeError, "cannot split");
  }

  struct SliceCase {
    Ints x, starts, ends, axes, steps, out;
  };
  const SliceCase slices[] = {
      {{10, 5}, {1, 0}, {3, 4}, {}, {}, {2, 4}},
      {{10, 5}, {1}, {3}, {}, {}, {2, 5}},
      {{10, 5}, {-3}, {INT64_MAX}, {0}, {}, {3, 5}},
      {{10, 5}, {0}, {-1}, {-1}, {}, {10, 4}},
      {{10, 5}, {-1}, {INT64_MIN}, {0}, {-1}, {10, 5}},
      {{10, 5}, {-1}, {-11}, {0}, {-3}, {4, 5}},
      {{10, 5}, {8}, {2}, {0}, {-2}, {3, 5}},
      {{10, 5}, {100}, {-100}, {0}, {-4}, {3, 5}},
      {{10, 5}, {2}, {9}, {0}, {3}, {3, 5}},
      {{10, 5}, {5}, {5}, {0}, {}, {0, 5}},
      {{10, 5}, {5}, {2}, {0}, {}, {0, 5}},
      {{10, 5}, {0}, {INT64_MAX}, {0}, {INT64_MAX}, {1, 5}},
      {{10, 5}, {9}, {INT64_MIN}, {0}, {INT64_MIN}, {1, 5}},
      {{10, 5}, {INT64_MIN}, {INT64_MAX}, {0}, {1}, {10, 5}},
      {{10, 5}, {9}, {INT32_MAX}, {0}, {-2}, {5, 5}},
  };
  for (const SliceCase& c : slices) {
    TEST_GRAPH(t);
    t.Begin(Op::kSlice).In(t.Input(c.x)).In(t.IntVector(c.starts)).In(t.IntVector(c.ends));
    if (c.axes.size() != 0) {
      t.In(t.IntVector(c.axes, kI32));
    } else {
      t.Skip();
    }
    if (c.steps.size() != 0) t.In(t.IntVector(c.steps));
    t.ExpectShape(t.Out(), c.out);
  }
  const SliceCase bad_slices[] = {
      {{10, 5}, {1}, {3}, {2}, {}, {}},   {{10, 5}, {1, 1}, {3}, {0}, {}, {}},
      {{10, 5}, {1}, {3}, {0}, {0}, {}},  {{10, 5}, {1, 1}, {3, 3}, {0, -2}, {}, {}},
      {{10}, {1, 1}, {3, 3}, {}, {}, {}},
  };
  for (const SliceCase& c : bad_slices) {
    TEST_GRAPH(t);
    t.Begin(Op::kSlice).In(t.Input(c.x)).In(t.IntVector(c.starts)).In(t.IntVector(c.ends));
    if (c.axes.size() != 0) {
      t.In(t.IntVector(c.axes));
    } else {
      t.Skip();
    }
    if (c.steps.size() != 0) t.In(t.IntVector(c.steps));
    t.Out();
    t.ExpectError(kShapeError, "node 'n0' (Slice): ");
  }
  {
    TEST_GRAPH(t);
    const uint32_t runtime = t.Input({1}, kI64);
    t.Begin(Op::kSlice).In(t.Input({4})).In(runtime).In(t.IntVector({2})).Out();
    t.ExpectError(kUnsupportedError, "starts 'tensor' [1] depends on the values of the inputs");
  }

  struct TargetCase {
    Ints x, target;
    int64_t allowzero;
    Ints out;
    bool fits;
  };
  const TargetCase reshapes[] = {
      {{2, 3, 4}, {6, 4}, 0, {6, 4}, true},
      {{2, 3, 4}, {0, -1}, 0, {2, 12}, true},
      {{2, 3, 4}, {-1}, 0, {24}, true},
      {{2, 3, 4}, {0, 0, 0, 0}, 0, {}, false},
      {{2, 3, 4}, {4, 0, -1}, 0, {4, 3, 2}, true},
      {{1}, {}, 0, {}, true},
      {{2, 3, 4}, {5, -1}, 0, {}, false},
      {{2, 3, 4}, {-1, -1}, 0, {}, false},
      {{2, 3, 4}, {-2, 12}, 0, {}, false},
      {{2, 3, 4}, {0, 12}, 1, {}, false},
      {{2, 3, 4}, {0, -1}, 1, {}, false},
      {{2, 3}, {3, 3}, 0, {}, false},
      {{2, 3}, {INT64_MAX, INT64_MAX}, 0, {}, false},
      {{6}, {1, 1, 1, 1, 1, 1, 1, 6}, 0, {1, 1, 1, 1, 1, 1, 1, 6}, true},
  };
  for (const TargetCase& c : reshapes) {
    TEST_GRAPH(t);
    t.Begin(Op::kReshape).In(t.Input(c.x)).In(t.IntVector(c.target));
    const uint32_t y = t.Attribute(K::k_allowzero, c.allowzero).Out();
    if (c.fits) {
      t.ExpectShape(y, c.out);
    } else {
      t.ExpectError(kShapeError, "cannot take the shape");
    }
  }
  {
    TEST_GRAPH(t);
    t.Begin(Op::kReshape).In(t.Input({1})).In(t.IntVector({1, 1, 1, 1, 1, 1, 1, 1, 1})).Out();
    t.ExpectError(kUnsupportedError, "rank 9");
  }
  const TargetCase flattens[] = {
      {{2, 3, 4}, {}, 1, {2, 12}, true},  {{2, 3, 4}, {}, 0, {1, 24}, true},
      {{2, 3, 4}, {}, 3, {24, 1}, true},  {{2, 3, 4}, {}, -1, {6, 4}, true},
      {{2, 3, 4}, {}, -3, {1, 24}, true}, {{2, 3, 4}, {}, 4, {}, false},
      {{}, {}, 0, {1, 1}, true},          {{2, 3, 4}, {}, -4, {}, false},
  };
  for (const TargetCase& c : flattens) {
    TEST_GRAPH(t);
    const uint32_t y =
        t.Begin(Op::kFlatten).In(t.Input(c.x)).Attribute(K::k_axis, c.allowzero).Out();
    if (c.fits) {
      t.ExpectShape(y, c.out);
    } else {
      t.ExpectError(kShapeError, "out of range");
    }
  }
  const TargetCase squeezes[] = {
      {{1, 3, 1}, {0, -1}, 0, {3}, true}, {{1, 3, 1}, {2}, 0, {1, 3}, true},
      {{1, 3, 1}, {1}, 0, {}, false},     {{1, 3, 1}, {3}, 0, {}, false},
      {{1, 3, 1}, {}, 0, {3}, true},
  };
  for (const TargetCase& c : squeezes) {
    TEST_GRAPH(t);
    const uint32_t y = t.Begin(Op::kSqueeze).In(t.Input(c.x)).In(t.IntVector(c.target)).Out();
    if (c.fits) {
      t.ExpectShape(y, c.out);
    } else {
      t.ExpectError(kShapeError, "axis");
    }
  }
  {
    TEST_GRAPH(t);
    t.ExpectShape(t.Begin(Op::kSqueeze).In(t.Input({1, 3, 1, 2})).Out(), {3, 2});
  }
  const TargetCase unsqueezes[] = {
      {{3, 4}, {0}, 0, {1, 3, 4}, true}, {{3, 4}, {-1, 1}, 0, {3, 1, 4, 1}, true},
      {{}, {0}, 0, {1}, true},           {{3, 4}, {3}, 0, {}, false},
      {{3, 4}, {0, -4}, 0, {}, false},   {{3}, {-1, -2}, 0, {3, 1, 1}, true},
  };
  for (const TargetCase& c : unsqueezes) {
    TEST_GRAPH(t);
    const uint32_t y = t.Begin(Op::kUnsqueeze).In(t.Input(c.x)).In(t.IntVector(c.target)).Out();
    if (c.fits) {
      t.ExpectShape(y, c.out);
    } else {
      t.ExpectError(kShapeError, "ax");
    }
  }
  {
    TEST_GRAPH(t);
    t.ExpectShape(t.Begin(Op::kTranspose).In(t.Input({2, 3, 4})).Out(), {4, 3, 2});
  }
  {
    TEST_GRAPH(t);
    t.Begin(Op::kTranspose).In(t.Input({2, 3, 4})).Attribute(K::k_perm, {1, 2, 0});
    t.ExpectShape(t.Out(), {3, 4, 2});
  }
  for (const Ints& perm : {Ints{0, 1}, Ints{0, 1, 1}, Ints{0, 1, 3}, Ints{0, 1, -1}}) {
    TEST_GRAPH(t);
    t.Begin(Op::kTranspose).In(t.Input({2, 3, 4})).Attribute(K::k_perm, perm).Out();
    t.ExpectError(kShapeError, "not a permutation");
  }
  const TargetCase expands[] = {
      {{3, 1}, {2, 1, 6}, 0, {2, 3, 6}, true},
      {{3, 4}, {1}, 0, {3, 4}, true},
      {{}, {2, 2}, 0, {2, 2}, true},
      {{3}, {4}, 0, {}, false},
      {{1}, {-1}, 0, {}, false},
      {{1}, {INT64_MAX}, 0, {}, false},
  };
  for (const TargetCase& c : expands) {
    TEST_GRAPH(t);
    const uint32_t y = t.Begin(Op::kExpand).In(t.Input(c.x)).In(t.IntVector(c.target)).Out();
    if (c.fits) {
      t.ExpectShape(y, c.out);
    } else {
      t.ExpectError(kShapeError, "does not broadcast");
    }
  }
  {
    TEST_GRAPH(t);
    t.ExpectShape(t.Begin(Op::kIdentity).In(t.Input({2}, kI64)).Out(), {2}, kI64);
  }
  {
    TEST_GRAPH(t);
    t.Begin(Op::kGather).In(t.Input({2, 5, 4})).In(t.Input({3, 6}, kI32));
    t.ExpectShape(t.Attribute(K::k_axis, int64_t{1}).Out(), {2, 3, 6, 4});
  }
  {
    TEST_GRAPH(t);
    t.Begin(Op::kGather).In(t.Input({2, 5})).In(t.Scalar(-2));
    t.ExpectShape(t.Attribute(K::k_axis, int64_t{-1}).Out(), {2});
  }
  {
    TEST_GRAPH(t);
    t.Begin(Op::kGather).In(t.Input({2, 5})).In(t.IntVector({0, 2})).Out();
    t.ExpectError(kShapeError, "index 2 is out of range for axis 0");
  }

  struct PadCase {
    Ints x, pads, axes;
    PadMode mode;
    Ints out;
  };
  const PadCase pads[] = {
      {{2, 3}, {1, 0, 0, 4}, {}, PadMode::kConstant, {3, 7}},
      {{2, 3}, {-1, 0, 0, -2}, {}, PadMode::kConstant, {1, 1}},
      {{2, 3}, {-1, 0, -1, 0}, {}, PadMode::kConstant, {0, 3}},
      {{2, 3}, {2, 1}, {-1}, PadMode::kReflect, {2, 6}},
      {{2, 3}, {7, 8}, {0}, PadMode::kEdge, {17, 3}},
      {{2, 3}, {3, 4}, {1}, PadMode::kWrap, {2, 10}},
      {{2, 3}, {-2, 1}, {1}, PadMode::kEdge, {2, 2}},
      {{2, 3}, {3, 0, -4, 0}, {}, PadMode::kConstant, {1, 3}},
  };
  for (const PadCase& c : pads) {
    TEST_GRAPH(t);
    t.Begin(Op::kPad).In(t.Input(c.x)).In(t.IntVector(c.pads)).In(t.Floats({1.5f}));
    if (c.axes.size() != 0) t.In(t.IntVector(c.axes));
    t.Attribute(K::k_mode, static_cast<int64_t>(c.mode));
    t.ExpectShape(t.Out(), c.out);
  }
  const PadCase bad_pads[] = {
      {{2, 3}, {1, 0, 0}, {}, PadMode::kConstant, {}},
      {{2, 3}, {-2, 0, -1, 0}, {}, PadMode::kConstant, {}},
      {{2, 3}, {3, 0, -4, 0}, {}, PadMode::kEdge, {}},
      {{2, 3}, {0, 3, 0, 0}, {}, PadMode::kReflect, {}},
      {{2, 3}, {0, 1, 0, -3}, {}, PadMode::kEdge, {}},
      {{2, 3}, {1, 1}, {2}, PadMode::kConstant, {}},
      {{2, 3}, {INT64_MAX, 1}, {0}, PadMode::kConstant, {}},
      {{2, 3}, {1, INT64_MIN}, {0}, PadMode::kConstant, {}},
      {{2, 3}, {1, 1}, {0}, static_cast<PadMode>(4), {}},
  };
  for (const PadCase& c : bad_pads) {
    TEST_GRAPH(t);
    t.Begin(Op::kPad).In(t.Input(c.x)).In(t.IntVector(c.pads)).Skip();
    if (c.axes.size() != 0) t.In(t.IntVector(c.axes));
    t.Attribute(K::k_mode, static_cast<int64_t>(c.mode)).Out();
    t.ExpectError(static_cast<int>(c.mode) == 4 ? kFormatError : kShapeError, "(Pad): ");
  }
}

void TestResize() {
  struct ScaleCase {
    Ints x;
    std::initializer_list<float> scales;
    Ints axes, out;
  };
  const ScaleCase scales[] = {
      {{1, 3, 4, 5}, {1, 1, 2, 2}, {}, {1, 3, 8, 10}},
      {{1, 3, 4, 5}, {2, 0.5f}, {2, 3}, {1, 3, 8, 2}},
      {{1, 3, 4, 5}, {2, 3}, {-1, 2}, {1, 3, 12, 10}},
      {{1, 3, 10, 5}, {1, 1, 0.7f, 0.6f}, {}, {1, 3, 7, 3}},
      {{1, 3, 4, 5}, {1, 1, 0.1f, 1}, {}, {}},
      {{1, 3, 4, 5}, {1, 1, -1, 1}, {}, {}},
      {{1, 3, 4, 5}, {1, 1, 1e30f, 1}, {}, {}},
      {{1, 3, 4, 5}, {1, 1, 2}, {}, {}},
      {{1, 3, 4, 5}, {2, 2}, {2, 2}, {}},
      {{1, 3, 4, 5}, {2, 2}, {2, 4}, {}},
  };
  for (const ScaleCase& c : scales) {
    TEST_GRAPH(t);
    t.Begin(Op::kResize).In(t.Input(c.x)).Skip().In(t.Floats(c.scales));
    if (c.axes.size() != 0) t.Attribute(K::k_axes, c.axes);
    const uint32_t y = t.Out();
    if (c.out.size() != 0) {
      t.ExpectShape(y, c.out);
    } else {
      t.ExpectError(kShapeError, "(Resize): ");
    }
  }
  struct SizeCase {
    Ints sizes, axes;
    int64_t policy;
    Ints out;
  };
  const SizeCase sizes[] = {
      {{1, 3, 9, 7}, {}, 0, {1, 3, 9, 7}},
      {{9, 7}, {2, 3}, 0, {1, 3, 9, 7}},
      {{9, 7}, {2, 3}, 1, {1, 3, 6, 7}},
      {{9, 7}, {2, 3}, 2, {1, 3, 9, 11}},
      {{9, 7}, {}, 0, {}},
      {{1, 3, 0, 7}, {}, 0, {}},
      {{1, 3, 9, 7}, {}, 3, {}},
  };
  for (const SizeCase& c : sizes) {
    TEST_GRAPH(t);
    const uint32_t x = t.Input({1, 3, 4, 5});
    t.Begin(Op::kResize).In(x).Skip().In(t.Floats({})).In(t.IntVector(c.sizes));
    if (c.axes.size() != 0) t.Attribute(K::k_axes, c.axes);
    const uint32_t y = t.Attribute(K::k_keep_aspect_ratio_policy, c.policy).Out();
    if (c.out.size() != 0) {
      t.ExpectShape(y, c.out);
    } else {
      t.ExpectError(c.policy == 3 ? kFormatError : kShapeError, "(Resize): ");
    }
  }
  {
    TEST_GRAPH(t);
    t.Begin(Op::kResize).In(t.Input({1, 3, 4, 5})).Skip().Skip().Out();
    t.ExpectError(kShapeError, "has neither");
  }
}

}  // namespace
}  // namespace sparsert

int main() {
  sparsert::TestMovement();
  sparsert::TestResize();
  return sparsert::Summary();
}
