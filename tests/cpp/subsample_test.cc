// subsample of planes and tiles on every ISA: each column that a strided window of one element
// reads lies in its place, and nothing else is written.
#include "plan/subsample_columns.h"

#include "product_harness.h"

#if !defined(SRT_ARM)
namespace sparsert {
namespace test {
namespace {

// Where a plane's column lies in an image.
int64_t At(const PlaneColumns& c, int64_t plane, int64_t column) {
  int32_t tile = 0;
  while (c.Begin(tile + 1) <= column) ++tile;
  return c.Offset(tile) + plane * c.Plane(tile) + column - c.Begin(tile);
}

int64_t Whole(int64_t columns, int64_t lanes) { return (columns + lanes - 1) / lanes * lanes; }

void TestSubsample(const Kernel& kernel, int lanes, Random* random, int64_t width) {
  Window w;
  w.in[0] = random->Int(1, 9);
  w.in[1] = width;
  for (int d = 0; d < 2; ++d) {
    w.kernel[d] = 1;
    w.stride[d] = random->Int(1, 5);
    w.out[d] = (w.in[d] + w.stride[d] - 1) / w.stride[d];
  }
  const int64_t columns_in = w.in[0] * w.in[1];
  const int64_t columns = w.out[0] * w.out[1];
  const Tiling tiles_in = MakeTiling(columns_in, lanes, 8, random->Int(1, 6));
  const Tiling tiles = MakeTiling(columns, lanes, 8, random->Int(1, 6));
  const bool x_in_tiles = tiles_in.tiles > 1 && random->Int(0, 1) == 1;
  const bool y_in_tiles = tiles.tiles > 1 && random->Int(0, 1) == 1;
  SubsampleArgs a;
  a.images = random->Int(1, 2);
  a.planes = random->Int(1, 2 * static_cast<int>(kSubsamplePlanes) + 3);
  const PlaneColumns in(columns_in, Whole(columns_in, 16), a.planes,
                        x_in_tiles ? &tiles_in : nullptr);
  const PlaneColumns out(columns, Whole(columns, 16), a.planes, y_in_tiles ? &tiles : nullptr);
  a.x_image = Whole(columns_in, 16) * a.planes;
  a.y_image = Whole(columns, 16) * a.planes;
  Array<SubsamplePiece> pieces(DefaultAllocator());
  Must(CutPieces(w, in, out, lanes, &pieces));
  a.pieces = pieces.data();
  a.piece_count = static_cast<int32_t>(pieces.size());

  char text[200];
  std::snprintf(text, sizeof(text),
                "%s: %lld planes of %lldx%lld, strides %lldx%lld, %d tiles of x, %d of y",
                kernel.name, static_cast<long long>(a.planes), static_cast<long long>(w.in[0]),
                static_cast<long long>(w.in[1]), static_cast<long long>(w.stride[0]),
                static_cast<long long>(w.stride[1]), in.tiling.tiles, out.tiling.tiles);
  context = text;
  constexpr int64_t kReadBehind = 16;
  Guarded x(a.images * a.x_image + kReadBehind, random->Int(0, 1) == 1, std::nanf(""));
  Guarded y(a.images * a.y_image, random->Int(0, 1) == 1, std::nanf(""));
  for (int64_t i = 0; i < a.images; ++i) {
    for (int64_t p = 0; p < a.planes; ++p) {
      for (int64_t c = 0; c < columns_in; ++c) {
        x[i * a.x_image + At(in, p, c)] = Quarter(random, 100);
      }
    }
  }
  Run(kernel, &a, {x.data(), y.data()}, SubsampleItems(a), 0);
  ++checks;
  int64_t written = 0;
  for (int64_t i = 0; i < y.size(); ++i) written += std::isnan(y[i]) ? 0 : 1;
  if (written != a.images * a.planes * columns) return Fail("wrote more or less than the columns");
  for (int64_t i = 0; i < a.images; ++i) {
    for (int64_t p = 0; p < a.planes; ++p) {
      for (int64_t c = 0; c < columns; ++c) {
        const int64_t from = c / w.out[1] * w.stride[0] * w.in[1] + c % w.out[1] * w.stride[1];
        if (y[i * a.y_image + At(out, p, c)] == x[i * a.x_image + At(in, p, from)]) continue;
        return Fail("a column is not in its place");
      }
    }
  }
}

}  // namespace
}  // namespace test
}  // namespace sparsert
#endif

int main() {
#if defined(SRT_ARM)  // see kHasTiledPlanes
  std::printf("skipped: not of this build\n");
#else
  using namespace sparsert;        // NOLINT
  using namespace sparsert::test;  // NOLINT
  Random random(37);
  for (const Isa isa : Isas()) {
    Kernel kernel;
    int lanes = 0;
    Expect(SelectSubsample(isa, &kernel, &lanes) && kernel.isa == isa,
           "there is a kernel on every ISA");
    for (const int64_t width :
         {1, 2, 3, 5, 7, 8, 9, 14, 15, 16, 17, 28, 31, 32, 33, 47, 56, 63, 64, 65, 97, 127, 200}) {
      for (int n = 0; n < 12; ++n) TestSubsample(kernel, lanes, &random, width);
    }
  }
  return Finish("subsample_test");
#endif
}
