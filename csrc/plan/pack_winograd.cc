// Winograd's filter transform, U = G g G^T.
#include "plan/pack_winograd.h"

#include <algorithm>

namespace sparsert {
namespace {

constexpr int kMaxRows = 8;  // of a panel

// Filters of one channel side by side, an element each of the rows of a panel.
using Element = double[kMaxRows];

// G times columns of three.
void TransformColumns(const Element& a, const Element& b, const Element& c, Element* out0,
                      Element* out1, Element* out2, Element* out3) {
  for (int r = 0; r < kMaxRows; ++r) {
    const double ends = 0.5 * (a[r] + c[r]);
    const double middle = 0.5 * b[r];
    (*out0)[r] = a[r];
    (*out1)[r] = ends + middle;
    (*out2)[r] = ends - middle;
    (*out3)[r] = c[r];
  }
}

void TransformFilters(const Element (&g)[9], Element (&u)[kWinogradPoints]) {
  Element gg[4][3];  // G g
  for (int j = 0; j < 3; ++j) {
    TransformColumns(g[j], g[3 + j], g[6 + j], &gg[0][j], &gg[1][j], &gg[2][j], &gg[3][j]);
  }
  for (int i = 0; i < 4; ++i) {
    Element* row = u + 4 * i;
    TransformColumns(gg[i][0], gg[i][1], gg[i][2], &row[0], &row[1], &row[2], &row[3]);
  }
}

// One panel and one channel. `to`: [points] `point_floats` apart, of the first `w.panel_rows` rows.
void PackFilters(const WinogradWeights& w, const float* filters, int64_t first_row, int64_t k,
                 float* to, int64_t point_floats) {
  Element g[9] = {};
  const int64_t rows = std::min<int64_t>(w.panel_rows, w.rows - first_row);
  for (int64_t r = 0; r < rows; ++r) {
    const float* filter = filters + ((first_row + r) * w.depth + k) * 9;
    for (int tap = 0; tap < 9; ++tap) g[tap][r] = filter[tap];
  }
  Element u[kWinogradPoints];
  TransformFilters(g, u);
  for (int p = 0; p < kWinogradPoints; ++p, to += point_floats) {
    for (int32_t r = 0; r < w.panel_rows; ++r) to[r] = static_cast<float>(u[p][r]);
  }
}

}  // namespace

Status PackWinograd(const float* filters, const WinogradWeights& w, PackedWinograd* packed) {
  if (w.panel_rows > kMaxRows) return Status::Error(StatusCode::kInternal, "winograd panels");
  SRT_RETURN_IF_ERROR(packed->values.resize(static_cast<size_t>(w.floats())));
  packed->weights = w;
  packed->weights.values = packed->values.data();
  float* group = packed->values.data();
  for (int32_t first = 0; first < w.panels(); first += w.group_panels) {
    const int64_t panels = std::min(w.group_panels, w.panels() - first);
    const int64_t point_floats = panels * w.panel_rows * w.depth;
    for (int64_t panel = 0; panel < panels; ++panel) {
      const int64_t first_row = (first + panel) * w.panel_rows;
      for (int64_t k = 0; k < w.depth; ++k) {
        const int64_t slab = k / w.block_depth * w.block_depth;
        const int64_t slab_depth = std::min<int64_t>(w.block_depth, w.depth - slab);
        float* to = group + (slab * panels + panel * slab_depth + k - slab) * w.panel_rows;
        PackFilters(w, filters, first_row, k, to, point_floats);
      }
    }
    group += point_floats * kWinogradPoints;
  }
  return Status::Ok();
}

}  // namespace sparsert
