// Tests of plan/place_concats and plan/find_views: which tensors share the memory of which.
#include "plan/place_concats.h"

#include "plan/find_views.h"
#include "test_graph.h"

namespace sparsert {
namespace {

using K = AttrKey;

uint32_t Relu(TestGraph* t, uint32_t x) {
  return t->Begin(Op::kUnary).In(x).Fn(UnaryFn::kRelu).Out();
}

uint32_t Concat(TestGraph* t, std::initializer_list<uint32_t> inputs, int64_t axis = 1) {
  t->Begin(Op::kConcat).Attribute(K::k_axis, axis);
  for (const uint32_t x : inputs) t->In(x);
  return t->Out();
}

uint32_t Gather(TestGraph* t, uint32_t x, Ints order) {
  const uint32_t indices = t->IntVector(order);
  return t->Begin(Op::kGather).In(x).In(indices).Attribute(K::k_axis, 1).Out();
}

// Of all tensors of a graph: whether they are feature-major.
Array<bool> Flags(const TestGraph& t, bool feature_major) {
  Array<bool> flags(&kAllocator);
  Must(flags.resize(t.graph.tensors.size()));
  for (bool& flag : flags) flag = feature_major;
  return flags;
}

// The parts of a graph whose output is its last tensor.
struct Places {
  explicit Places(TestGraph* t, bool feature_major = false)
      : memory(&kAllocator), parts(&kAllocator) {
    Must(t->Infer());
    Must(PlaceConcats(t->graph, t->table, Flags(*t, feature_major), &memory, &parts));
  }

  void Expect(int line, uint32_t tensor, uint32_t whole, int64_t first = 0, int64_t step = 1) {
    ++checks;
    const ConcatPart& p = parts[tensor];
    if (p.whole == whole && (whole == kNoTensor || (p.first == first && p.step == step))) return;
    ++failures;
    fprintf(stderr, "line %d: part of %d at %d step %d, expected of %d at %d step %d\n", line,
            static_cast<int>(p.whole), static_cast<int>(p.first), static_cast<int>(p.step),
            static_cast<int>(whole), static_cast<int>(first), static_cast<int>(step));
  }

  Bump memory;
  Array<ConcatPart> parts;
};

#define EXPECT_PART(places, ...) places.Expect(__LINE__, __VA_ARGS__)

void TestBlocks() {
  {  // joined anew each time: the last one holds all
    TEST_GRAPH(t);
    const uint32_t a = Relu(&t, t.Input({2, 3, 5, 5}));
    const uint32_t b = Relu(&t, a);
    const uint32_t ab = Concat(&t, {a, b});
    const uint32_t c = Relu(&t, ab);
    const uint32_t abc = Concat(&t, {a, b, c});
    Relu(&t, abc);
    Places p(&t);
    EXPECT_PART(p, a, abc, 0);
    EXPECT_PART(p, b, abc, 3);
    EXPECT_PART(p, c, abc, 6);
    EXPECT_PART(p, ab, kNoTensor);
    EXPECT_PART(p, abc, kNoTensor);
  }
  {  // joined onto the last result
    TEST_GRAPH(t);
    const uint32_t a = Relu(&t, t.Input({1, 3, 5}));
    const uint32_t b = Relu(&t, a);
    const uint32_t ab = Concat(&t, {a, b});
    const uint32_t c = Relu(&t, ab);
    const uint32_t cab = Concat(&t, {c, ab});
    Relu(&t, cab);
    Places p(&t);
    EXPECT_PART(p, ab, cab, 6);
    EXPECT_PART(p, a, ab, 0);
    EXPECT_PART(p, b, ab, 3);
    EXPECT_PART(p, c, cab, 0);
  }
}

// The features of what is feature-major lie as channels do.
void TestFeatures() {
  for (const bool feature_major : {false, true}) {
    TEST_GRAPH(t);
    const uint32_t a = Relu(&t, t.Input({2, 5, 5, 3}));
    const uint32_t b = Relu(&t, a);
    const uint32_t ab = Concat(&t, {a, b}, -1);
    const uint32_t rows = Concat(&t, {ab, ab}, 1);
    Relu(&t, rows);
    Places p(&t, feature_major);
    EXPECT_PART(p, a, feature_major ? ab : kNoTensor, 0);
    EXPECT_PART(p, b, feature_major ? ab : kNoTensor, 3);
    EXPECT_PART(p, ab, feature_major ? kNoTensor : rows, 0);
  }
}

void TestWhatIsNoPart() {
  TEST_GRAPH(t);
  const uint32_t x = t.Input({1, 4, 5, 5});
  const uint32_t a = Relu(&t, x);
  const uint32_t sizes = t.IntVector({1, 3});
  const uint32_t s = t.Begin(Op::kSplit).In(a).In(sizes).Attribute(K::k_axis, 1).Out(2);
  const uint32_t shape = t.IntVector({1, 2, 5, 10});
  const uint32_t r = Relu(&t, a);
  const uint32_t reshaped = t.Begin(Op::kReshape).In(r).In(shape).Out();
  const uint32_t back = t.IntVector({1, 4, 5, 5});
  const uint32_t view = t.Begin(Op::kReshape).In(reshaped).In(back).Out();
  const uint32_t constant = t.Weights({1, 2, 5, 5});
  const uint32_t y = Concat(&t, {x, s, constant, view, r, r});
  const uint32_t rows = Concat(&t, {y, y}, 2);
  const uint32_t pooled = t.Begin(Op::kGlobalAveragePool).In(y).Out();
  const uint32_t points = Concat(&t, {pooled, pooled});
  t.Begin(Op::kBinary).In(rows).In(rows).Fn(BinaryFn::kAdd).Out();
  const uint32_t output = Concat(&t, {a, a});
  Places p(&t);
  for (const uint32_t none : {x, s, constant, view, y, pooled, points, a, output}) {
    EXPECT_PART(p, none, kNoTensor);
  }
  EXPECT_PART(p, r, y, 11);  // the first of the two
}

void TestOrder() {
  for (const bool alone : {true, false}) {
    TEST_GRAPH(t);
    const uint32_t a = Relu(&t, t.Input({1, 3, 5, 5}));
    const uint32_t b = Relu(&t, a);
    const uint32_t ab = Concat(&t, {a, b});
    const uint32_t y = Gather(&t, ab, {0, 3, 1, 4, -4, 5});
    Relu(&t, alone ? y : ab);
    Places p(&t);
    if (alone) {
      EXPECT_PART(p, a, y, 0, 2);
      EXPECT_PART(p, b, y, 1, 2);
      ConcatPart part;
      ++checks;
      failures += PartOfOrder(p.parts[ab], 1, 2, &part) && part.first == 2 ? 0 : 1;
      ++checks;
      failures += PartOfOrder(p.parts[ab], 2, 2, &part) ? 1 : 0;  // 4 and 1
    } else {  // others read the Concat in its own order
      EXPECT_PART(p, a, ab, 0);
      EXPECT_PART(p, b, ab, 3);
    }
  }
  // Channels at unequal distances, twice the same channel, and too few channels.
  for (const Ints& order : {Ints{0, 1, 3, 2, 4, 5}, Ints{0, 1, 2, 3, 4, 4}, Ints{0, 1, 2, 3, 4}}) {
    TEST_GRAPH(t);
    const uint32_t a = Relu(&t, t.Input({1, 3, 5, 5}));
    const uint32_t b = Relu(&t, a);
    const uint32_t ab = Concat(&t, {a, b});
    Relu(&t, Gather(&t, ab, order));
    Places p(&t);
    EXPECT_PART(p, a, ab, 0);
    EXPECT_PART(p, b, ab, 3);
  }
}

// A small part is copied rather than that the whole waits for the rest over many nodes.
void TestWaiting() {
  for (const int64_t channels : {2, 1}) {
    for (const int nodes : {20, 40}) {
      TEST_GRAPH(t);
      const uint32_t early = Relu(&t, t.Input({1, channels, 5, 5}));
      uint32_t late = Relu(&t, t.Input({1, 5, 5, 5}));
      for (int i = 0; i < nodes; ++i) late = Relu(&t, late);
      const uint32_t y = Concat(&t, {early, late});
      Relu(&t, y);
      Places p(&t);
      EXPECT_PART(p, early, channels == 1 && nodes == 40 ? kNoTensor : y, 0);
      EXPECT_PART(p, late, y, channels);
    }
  }
}

void ExpectView(int line, TestGraph* t, bool feature_major, uint32_t y, bool is_view, int64_t image,
                int64_t channel) {
  Must(t->Infer());
  for (const Node& node : t->graph.nodes) {
    for (size_t i = 0; i < node.outputs.size; ++i) {
      if (node.outputs[i] != y) continue;
      ViewRange range;
      Must(FindView(NodeView(t->graph, t->table, node), i, Flags(*t, feature_major), &range));
      ++checks;
      if (range.is_view == is_view &&
          (!is_view || (range.image == image && range.plane == channel))) {
        return;
      }
      ++failures;
      fprintf(stderr, "line %d: view %d from image %d, channel %d\n", line, range.is_view,
              static_cast<int>(range.image), static_cast<int>(range.plane));
    }
  }
}

#define EXPECT_VIEW(...) ExpectView(__LINE__, __VA_ARGS__)

void TestViews() {
  for (const int64_t axis : {0, 1, 2}) {
    TEST_GRAPH(t);
    const uint32_t x = t.Input({6, 6, 6});
    const uint32_t sizes = t.IntVector({1, 3, 2});
    const uint32_t y = t.Begin(Op::kSplit).In(x).In(sizes).Attribute(K::k_axis, axis).Out(3);
    for (const bool feature_major : {false, true}) {
      const int64_t channels = feature_major ? 2 : 1;
      const bool is_view = axis == 0 || axis == channels;
      EXPECT_VIEW(&t, feature_major, y, is_view, 0, 0);
      EXPECT_VIEW(&t, feature_major, y + 2, is_view, axis == 0 ? 4 : 0, axis == channels ? 4 : 0);
    }
    EXPECT_VIEW(&t, false, Relu(&t, y), false, 0, 0);
  }
  struct Range {
    Ints starts, ends, axes, steps;
    bool is_view;  // of channels in dimension 1
    int64_t image, channel;
  };
  const Range ranges[] = {
      {{1, 2}, {3, 5}, {0, 1}, {1, 1}, true, 1, 2},
      {{2}, {-1}, {1}, {1}, true, 0, 2},
      {{2}, {6}, {1}, {2}, false, 0, 0},
      {{5}, {0}, {1}, {-1}, false, 0, 0},
      {{3}, {4}, {1}, {2}, true, 0, 3},
      {{1}, {6}, {2}, {1}, false, 0, 0},
      {{0, 2}, {6, 3}, {2, 0}, {1, 1}, true, 2, 0},
      {{3}, {3}, {1}, {1}, false, 0, 0},
  };
  for (const Range& r : ranges) {
    TEST_GRAPH(t);
    const uint32_t x = t.Input({6, 6, 6});
    const uint32_t starts = t.IntVector(r.starts);
    const uint32_t ends = t.IntVector(r.ends);
    const uint32_t axes = t.IntVector(r.axes);
    const uint32_t steps = t.IntVector(r.steps);
    t.Begin(Op::kSlice).In(x).In(starts).In(ends).In(axes).In(steps);
    EXPECT_VIEW(&t, false, t.Out(), r.is_view, r.image, r.channel);
  }
  for (const int64_t axis : {1, 2}) {  // a part of the columns, and one of the features
    TEST_GRAPH(t);
    const uint32_t x = t.Input({6, 6, 6});
    const uint32_t starts = t.IntVector({2});
    const uint32_t ends = t.IntVector({5});
    const uint32_t axes = t.IntVector({axis});
    t.Begin(Op::kSlice).In(x).In(starts).In(ends).In(axes);
    EXPECT_VIEW(&t, true, t.Out(), axis == 2, 0, 2);
  }
}

}  // namespace
}  // namespace sparsert

int main() {
  sparsert::TestBlocks();
  sparsert::TestFeatures();
  sparsert::TestWhatIsNoPart();
  sparsert::TestOrder();
  sparsert::TestWaiting();
  sparsert::TestViews();
  return sparsert::Summary();
}
