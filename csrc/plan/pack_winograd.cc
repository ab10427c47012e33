// Winograd's filter transform, U = G g G^T.
#include "plan/pack_winograd.h"

#include <algorithm>

namespace sparsert {
namespace {

// G times a column of three.
void TransformColumn(const double (&g)[3], double (&out)[4]) {
  out[0] = g[0];
  out[1] = 0.5 * (g[0] + g[1] + g[2]);
  out[2] = 0.5 * (g[0] - g[1] + g[2]);
  out[3] = g[2];
}

void TransformFilter(const float* filter, double (&u)[4][4]) {
  double gg[4][3];  // G g
  for (int j = 0; j < 3; ++j) {
    const double column[3] = {filter[j], filter[3 + j], filter[6 + j]};
    double out[4];
    TransformColumn(column, out);
    for (int i = 0; i < 4; ++i) gg[i][j] = out[i];
  }
  for (int i = 0; i < 4; ++i) TransformColumn(gg[i], u[i]);
}

}  // namespace

Status PackWinograd(const float* filters, const WinogradWeights& shape, PackedWinograd* packed) {
  const WinogradWeights& w = shape;
  SRT_RETURN_IF_ERROR(packed->values.resize(static_cast<size_t>(w.floats())));
  packed->weights = shape;
  packed->weights.values = packed->values.data();
  float* group = packed->values.data();
  for (int32_t first = 0; first < w.panels(); first += w.group_panels) {
    const int64_t panels = std::min(w.group_panels, w.panels() - first);
    const int64_t point_floats = panels * w.panel_rows * w.depth;
    for (int64_t row = 0; row < panels * w.panel_rows; ++row) {
      const int64_t channel = static_cast<int64_t>(first) * w.panel_rows + row;
      for (int64_t k = 0; k < w.depth; ++k) {
        double u[4][4] = {};
        if (channel < w.rows) TransformFilter(filters + (channel * w.depth + k) * 9, u);
        const int64_t slab = k / w.block_depth * w.block_depth;
        const int64_t slab_depth = std::min<int64_t>(w.block_depth, w.depth - slab);
        float* to = group + slab * panels * w.panel_rows +
                    row / w.panel_rows * slab_depth * w.panel_rows + (k - slab) * w.panel_rows +
                    row % w.panel_rows;
        for (int p = 0; p < kWinogradPoints; ++p) {
          to[p * point_floats] = static_cast<float>(u[p / 4][p % 4]);
        }
      }
    }
    group += point_floats * kWinogradPoints;
  }
  return Status::Ok();
}

}  // namespace sparsert
