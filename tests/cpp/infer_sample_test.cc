// Shapes of the ops that read images at places which data gives: expected results and errors.
#include "test_graph.h"

namespace sparsert {
namespace {

using K = AttrKey;
constexpr DType kI64 = DType::kI64;
constexpr StatusCode kShapeError = StatusCode::kShape;
constexpr StatusCode kUnsupportedError = StatusCode::kUnsupported;

void TestGridSample() {
  {
    TEST_GRAPH(t);
    t.Begin(Op::kGridSample).In(t.Input({2, 3, 5, 7})).In(t.Input({2, 4, 6, 2}));
    t.ExpectShape(t.Out(), {2, 3, 4, 6});
  }
  {
    TEST_GRAPH(t);
    t.Begin(Op::kGridSample).In(t.Input({2, 3, 5, 7, 2})).In(t.Input({2, 4, 6, 1, 3}));
    t.ExpectShape(t.Out(), {2, 3, 4, 6, 1});
  }
  const std::initializer_list<int64_t> grids[] = {
      {1, 4, 6, 2}, {2, 4, 6, 3}, {2, 4, 2}, {2, 4, 6, 2, 2}};
  for (const auto& grid : grids) {
    TEST_GRAPH(t);
    t.Begin(Op::kGridSample).In(t.Input({2, 3, 5, 7})).In(t.Input(grid)).Out();
    t.ExpectError(kShapeError, "does not fit");
  }
  {
    TEST_GRAPH(t);
    t.Begin(Op::kGridSample).In(t.Input({2, 3, 5, 7}, kI64)).In(t.Input({2, 4, 6, 2})).Out();
    t.ExpectError(kUnsupportedError, "float32");
  }
  {
    TEST_GRAPH(t);
    t.Begin(Op::kGridSample).In(t.Input({2, 3})).In(t.Input({2, 0})).Out();
    t.ExpectError(kShapeError, "must have rank 3 to 5");
  }
  {
    TEST_GRAPH(t);
    t.Begin(Op::kGridSample).In(t.Input({2, 3, 5, 7, 2})).In(t.Input({2, 4, 6, 1, 3}));
    t.Attribute(K::k_mode, int64_t{2}).Out();
    t.ExpectError(kUnsupportedError, "cubic");
  }
  {
    TEST_GRAPH(t);
    t.Begin(Op::kGridSample).In(t.Input({1, 1, 1 << 16, 1 << 16})).In(t.Input({1, 1, 1, 2})).Out();
    t.ExpectError(kShapeError, "too large");
  }
}

void TestRoiAlign() {
  {
    TEST_GRAPH(t);
    t.Begin(Op::kRoiAlign).In(t.Input({2, 3, 5, 7})).In(t.Input({9, 4})).In(t.Input({9}, kI64));
    t.Attribute(K::k_output_shape, {4, 6});
    t.ExpectShape(t.Out(), {9, 3, 4, 6});
  }
  {
    TEST_GRAPH(t);
    t.Begin(Op::kRoiAlign).In(t.Input({2, 3, 5, 7})).In(t.Input({9, 5})).In(t.Input({9}, kI64));
    t.Attribute(K::k_output_shape, {4, 6}).Out();
    t.ExpectError(kShapeError, "does not fit");
  }
  {
    TEST_GRAPH(t);
    t.Begin(Op::kRoiAlign).In(t.Input({2, 3, 5, 7})).In(t.Input({9, 4})).In(t.Input({8}, kI64));
    t.Attribute(K::k_output_shape, {4, 6}).Out();
    t.ExpectError(kShapeError, "does not fit");
  }
  {
    TEST_GRAPH(t);
    t.Begin(Op::kRoiAlign).In(t.Input({2, 3, 5, 7})).In(t.Input({9, 4})).In(t.Input({9}, kI64));
    t.Attribute(K::k_output_shape, {4, 6, 8}).Out();
    t.ExpectError(StatusCode::kModelFormat, "output_shape");
  }
}

void TestDeformColumns() {
  for (const int64_t groups : {int64_t{1}, int64_t{2}}) {
    TEST_GRAPH(t);
    t.Begin(Op::kDeformColumns).In(t.Input({2, 4, 5, 7})).In(t.Input({2, 12 * groups, 4, 5}));
    t.In(t.Input({2, 6 * groups, 4, 5})).Attribute(K::k_kernel_shape, {2, 3});
    t.Attribute(K::k_group, groups);
    t.ExpectShape(t.Out(), {2, 24, 4, 5});
  }
  {
    TEST_GRAPH(t);
    t.Begin(Op::kDeformColumns).In(t.Input({2, 4, 5, 7})).In(t.Input({2, 12, 4, 4}));
    t.Attribute(K::k_kernel_shape, {2, 3}).Out();
    t.ExpectError(kShapeError, "does not fit");
  }
  {
    TEST_GRAPH(t);
    t.Begin(Op::kDeformColumns).In(t.Input({2, 4, 5, 7})).In(t.Input({2, 12, 4, 5}));
    t.In(t.Input({2, 5, 4, 5})).Attribute(K::k_kernel_shape, {2, 3}).Out();
    t.ExpectError(kShapeError, "does not fit");
  }
  {
    TEST_GRAPH(t);
    t.Begin(Op::kDeformColumns).In(t.Input({2, 4, 5, 7})).In(t.Input({2, 36, 4, 5}));
    t.Attribute(K::k_kernel_shape, {2, 3}).Attribute(K::k_group, int64_t{3}).Out();
    t.ExpectError(kShapeError, "groups");
  }
}

void TestPoolIndices() {
  TEST_GRAPH(t);
  t.Begin(Op::kMaxPool).In(t.Input({1, 2, 8, 9})).Attribute(K::k_kernel_shape, {2, 2});
  const uint32_t y = t.Out(2);
  t.ExpectShape(y, {1, 2, 7, 8});
  t.ExpectShape(y + 1, {1, 2, 7, 8}, kI64);
}

void TestCrop() {
  const int64_t crop = static_cast<int64_t>(CoordinateMode::kTfCropAndResize);
  {
    TEST_GRAPH(t);
    t.Begin(Op::kResize)
        .In(t.Input({1, 2, 8, 9}))
        .Attribute(K::k_coordinate_transformation_mode, crop);
    t.In(kNoTensor).In(kNoTensor).In(t.IntVector({1, 2, 3, 4})).Out();
    t.ExpectError(kShapeError, "roi");
  }
}

}  // namespace
}  // namespace sparsert

int main() {
  sparsert::TestGridSample();
  sparsert::TestRoiAlign();
  sparsert::TestDeformColumns();
  sparsert::TestPoolIndices();
  sparsert::TestCrop();
  return sparsert::Summary();
}
