// Where the taps of a block of points lie, and what each weighs.
#pragma once

#include <cmath>
#include <cstdint>

#include "base/arch.h"
#include "kernels/sample/sample.h"

namespace sparsert {

constexpr int kBlockPoints = 64;
constexpr int kMaxTaps = 16;

// Tap t of the block's point p.
struct TapBlock {
  int32_t offset[kMaxTaps][kBlockPoints];
  float weight[kMaxTaps][kBlockPoints];
};

SRT_INLINE int64_t BlocksOf(int64_t points) { return (points + kBlockPoints - 1) / kBlockPoints; }

// What a point has along one axis: `count` elements and their weights, -1 for one outside.
struct AxisTaps {
  int count;
  int64_t at[4];
  float weight[4];
};

// Places this far outside are all alike, and integers hold them.
constexpr float kFarPlace = 1e9f;

SRT_INLINE float Bounded(float place) {
  return place > -kFarPlace ? (place < kFarPlace ? place : kFarPlace) : -kFarPlace;
}

// `place` mirrored at low and high until it lies between them.
SRT_INLINE float Reflected(float place, float low, float high) {
  const float range = high - low;
  if (!(range > 0.0f)) return low;
  if (place >= low && place <= high) return place;
  const float beyond = place < low ? low - place : place - high;
  const int64_t times = static_cast<int64_t>(beyond / range);
  const float rest = beyond - static_cast<float>(times) * range;
  const bool from_low = (place < low) == (times % 2 == 0);
  return from_low ? low + rest : high - rest;
}

// The element that is read for index i.
SRT_INLINE int64_t PaddedIndex(GridPadding padding, bool align_corners, int64_t i, int64_t size) {
  if (i >= 0 && i < size) return i;
  if (padding == GridPadding::kZeros) return -1;
  if (padding == GridPadding::kReflection) {
    const float low = align_corners ? 0.0f : -0.5f;
    const float high = static_cast<float>(size) - (align_corners ? 1.0f : 0.5f);
    i = static_cast<int64_t>(Reflected(static_cast<float>(i), low, high));
  }
  return i < 0 ? 0 : i < size ? i : size - 1;
}

SRT_INLINE void CubicWeights(float t, float* weight) {
  constexpr float kA = -0.75f;
  const float far = t + 1.0f;
  const float rest = 1.0f - t;
  const float far_rest = rest + 1.0f;
  weight[0] = ((kA * far - 5.0f * kA) * far + 8.0f * kA) * far - 4.0f * kA;
  weight[1] = ((kA + 2.0f) * t - (kA + 3.0f)) * t * t + 1.0f;
  weight[2] = ((kA + 2.0f) * rest - (kA + 3.0f)) * rest * rest + 1.0f;
  weight[3] = ((kA * far_rest - 5.0f * kA) * far_rest + 8.0f * kA) * far_rest - 4.0f * kA;
}

// `value`: from -1 to 1 across the axis.
SRT_INLINE AxisTaps GridTaps(const GridSampleArgs& args, int64_t size, float value) {
  const float length = static_cast<float>(size);
  float place = args.align_corners ? (value + 1.0f) / 2.0f * (length - 1.0f)
                                   : ((value + 1.0f) * length - 1.0f) / 2.0f;
  place = Bounded(place);
  if (args.mode == ResizeMode::kNearest) place = std::nearbyint(place);
  const float low = args.align_corners ? 0.0f : -0.5f;
  const float high = length - (args.align_corners ? 1.0f : 0.5f);
  if (place < low || place > high) {
    // Of a cubic, each tap is moved to the border on its own.
    if (args.padding == GridPadding::kBorder && args.mode != ResizeMode::kCubic) {
      place = place < 0.0f ? 0.0f : place > length - 1.0f ? length - 1.0f : place;
    } else if (args.padding == GridPadding::kReflection) {
      place = Reflected(place, low, high);
    }
  }
  AxisTaps taps = {};
  const float floor = std::floor(place);
  const int64_t first = static_cast<int64_t>(floor);
  if (args.mode == ResizeMode::kNearest) {
    taps.count = 1;
    taps.at[0] = static_cast<int64_t>(place);
    taps.weight[0] = 1.0f;
  } else if (args.mode == ResizeMode::kLinear) {
    taps.count = 2;
    taps.at[0] = first;
    taps.weight[1] = place - floor;
    taps.weight[0] = 1.0f - taps.weight[1];
    taps.at[1] = first + 1;
  } else {
    taps.count = 4;
    for (int i = 0; i < 4; ++i) taps.at[i] = first - 1 + i;
    CubicWeights(place - floor, taps.weight);
  }
  for (int i = 0; i < taps.count; ++i) {
    taps.at[i] = PaddedIndex(args.padding, args.align_corners, taps.at[i], size);
  }
  return taps;
}

// The four elements around (y, x), 0 outside of the plane. `factor` multiplies the weights.
SRT_INLINE void BilinearTaps(float y, float x, const int64_t (&in)[2], float factor, int p,
                             TapBlock* taps) {
  const float place[2] = {Bounded(y), Bounded(x)};
  int64_t at[2][2];
  float weight[2][2];
  for (int a = 0; a < 2; ++a) {
    const float floor = std::floor(place[a]);
    at[a][0] = static_cast<int64_t>(floor);
    at[a][1] = at[a][0] + 1;
    weight[a][1] = place[a] - floor;
    weight[a][0] = 1.0f - weight[a][1];
  }
  for (int t = 0; t < 4; ++t) {
    const int64_t h = at[0][t / 2];
    const int64_t w = at[1][t % 2];
    const bool inside = h >= 0 && h < in[0] && w >= 0 && w < in[1];
    taps->offset[t][p] = inside ? static_cast<int32_t>(h * in[1] + w) : 0;
    taps->weight[t][p] = inside ? weight[0][t / 2] * weight[1][t % 2] * factor : 0.0f;
  }
}

// A sample of a box, as the original implementation has it: one element around the plane counts as
// its edge, all beyond as 0.
SRT_INLINE void RoiTaps(float y, float x, const int64_t (&in)[2], float factor, int p,
                        TapBlock* taps) {
  float place[2] = {y, x};
  bool inside = true;
  for (int a = 0; a < 2; ++a) {
    const float size = static_cast<float>(in[a]);
    inside = inside && place[a] >= -1.0f && place[a] <= size;
    place[a] = place[a] > 0.0f ? place[a] : 0.0f;
    place[a] = place[a] < size - 1.0f ? place[a] : size - 1.0f;
  }
  BilinearTaps(place[0], place[1], in, inside ? factor : 0.0f, p, taps);
}

}  // namespace sparsert
