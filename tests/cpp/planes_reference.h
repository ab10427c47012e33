// What the tests of convolutions over a few planes share, those of rowconv and of stem.
#pragma once

#include "product_harness.h"

namespace sparsert {
namespace test {

// One sum before the activation, and in `size` the sum of its terms' sizes.
template <typename Args>
double PlanesSum(const Args& a, int64_t stride_h, int64_t stride_w, const float* x, int64_t channel,
                 int64_t h, int64_t w, double* size) {
  double sum = a.bias == nullptr ? 0.0 : a.bias[channel];
  *size = std::fabs(sum);
  const float* weight = a.weights + channel * a.in_channels * a.kernel_h * a.kernel_w;
  for (int64_t i = 0; i < a.in_channels; ++i) {
    for (int64_t kh = 0; kh < a.kernel_h; ++kh) {
      for (int64_t kw = 0; kw < a.kernel_w; ++kw, ++weight) {
        const int64_t ih = h * stride_h + kh - a.pad_h;
        const int64_t iw = w * stride_w + kw - a.pad_w;
        if (ih < 0 || ih >= a.in_h || iw < 0 || iw >= a.in_w) continue;
        const double term = static_cast<double>(*weight) * x[i * a.x_plane + ih * a.in_w + iw];
        sum += term;
        *size += std::fabs(term);
      }
    }
  }
  return sum;
}

// Fails where right(image of x, channel, row, column, value of y, &wanted) is false, or where
// something stands between planes of y, which held NaN before.
template <typename Args, typename Right>
void CheckPlanes(const Args& a, int64_t rows, int64_t columns, Guarded* x, Guarded* y,
                 const Right& right) {
  ++checks;
  for (int64_t image = 0; image < a.batch; ++image) {
    for (int64_t c = 0; c < a.channels; ++c) {
      for (int64_t i = 0; i < a.y_plane; ++i) {
        const int64_t at = image * a.y_image + c * a.y_plane + i;
        if (i >= rows * columns) {
          if (at < y->size() && !std::isnan((*y)[at])) return Fail("wrote behind a plane of Y");
          continue;
        }
        const int64_t h = i / columns;
        const int64_t w = i % columns;
        double wanted = 0.0;
        if (right(x->data() + image * a.x_image, c, h, w, (*y)[at], &wanted)) continue;
        char text[160];
        std::snprintf(text, sizeof(text), "channel %lld, row %lld, column %lld: got %.9g, of %.9g",
                      static_cast<long long>(c), static_cast<long long>(h),
                      static_cast<long long>(w), static_cast<double>((*y)[at]), wanted);
        return Fail(text);
      }
    }
  }
}

}  // namespace test
}  // namespace sparsert
