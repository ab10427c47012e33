// Sample over Vec: the taps of a block of points are found once and serve all channels.
#pragma once

#include "base/fault.h"
#include "kernels/define.h"
#include "kernels/sample/taps.h"

namespace sparsert {
namespace SRT_ISA {

// What the taps of successive points add up to.
SRT_INLINE Vec SumTaps(const TapBlock& taps, int count, int p, const float* x, Mask m, Vec sum) {
  for (int t = 0; t < count; ++t) {
    const Vec w = LoadU(taps.weight[t] + p);
    const Vec v = GatherMask(x, taps.offset[t] + p, m);
    sum = Fma(Select(Equal(w, Zero()), Zero(), v), w, sum);
  }
  return sum;
}

// The largest of the weighted taps of successive points.
SRT_INLINE Vec MaxTaps(const TapBlock& taps, int p, const float* x, Mask m) {
  Vec most = Zero();
  for (int t = 0; t < 4; ++t) {
    const Vec w = LoadU(taps.weight[t] + p);
    const Vec v = Mul(Select(Equal(w, Zero()), Zero(), GatherMask(x, taps.offset[t] + p, m)), w);
    most = t == 0 ? v : Max(v, most);
  }
  return most;
}

SRT_INLINE Mask LanesOf(int points, int p) {
  return FirstN(points - p < Vec::kLanes ? points - p : Vec::kLanes);
}

// `step`: elements between the results of a channel and the next.
SRT_INLINE void WritePoints(const TapBlock& taps, int count, int points, int64_t channels,
                            const float* x, int64_t x_plane, float* y, int64_t step) {
  for (int64_t c = 0; c < channels; ++c, x += x_plane, y += step) {
    for (int p = 0; p < points; p += Vec::kLanes) {
      const Mask m = LanesOf(points, p);
      StoreMask(y + p, m, SumTaps(taps, count, p, x, m, Zero()));
    }
  }
}

SRT_INLINE int PointsOfBlock(int64_t points, int64_t block) {
  const int64_t left = points - block * kBlockPoints;
  return static_cast<int>(left < kBlockPoints ? left : kBlockPoints);
}

// The taps of a point of a grid are those of its axes, all with all. Returns how many.
SRT_INLINE int JoinAxes(const AxisTaps* axes, const GridSampleArgs& args, int p, TapBlock* taps) {
  int count = 1;
  int64_t offset[kMaxTaps] = {};
  float weight[kMaxTaps] = {1.0f};
  for (int a = 0; a < args.axes; ++a) {
    const AxisTaps& axis = axes[a];
    for (int t = count * axis.count - 1; t >= 0; --t) {
      const int from = t / axis.count;
      const int64_t at = axis.at[t % axis.count];
      const bool outside = at < 0 || offset[from] < 0;
      offset[t] = outside ? -1 : offset[from] * args.in[a] + at;
      weight[t] = weight[from] * axis.weight[t % axis.count];
    }
    count *= axis.count;
  }
  for (int t = 0; t < count; ++t) {
    taps->offset[t][p] = offset[t] < 0 ? 0 : static_cast<int32_t>(offset[t]);
    taps->weight[t][p] = offset[t] < 0 ? 0.0f : weight[t];
  }
  return count;
}

static void GridSample(const void* args_block, void* const* io, int64_t begin, int64_t end,
                       void* scratch) {
  const GridSampleArgs& args = *static_cast<const GridSampleArgs*>(args_block);
  const SamplePlanes& planes = args.planes;
  TapBlock* taps = static_cast<TapBlock*>(scratch);
  const int64_t blocks = BlocksOf(planes.points);
  for (int64_t item = begin; item < end; ++item) {
    const int64_t image = item / blocks;
    const int64_t block = item % blocks;
    const int points = PointsOfBlock(planes.points, block);
    const int64_t first = block * kBlockPoints;
    const float* grid =
        static_cast<const float*>(io[1]) + (image * planes.points + first) * args.axes;
    int count = 0;
    for (int p = 0; p < kBlockPoints; ++p) {
      AxisTaps axes[kMaxSampleAxes] = {};
      for (int a = 0; a < args.axes; ++a) {
        // Lanes behind the last point are computed too, and not stored.
        const float value = p < points ? grid[p * args.axes + args.axes - 1 - a] : 0.0f;
        axes[a] = GridTaps(args, args.in[a], value);
      }
      count = JoinAxes(axes, args, p, taps);
    }
    WritePoints(*taps, count, points, planes.channels,
                static_cast<const float*>(io[0]) + image * planes.x_image, planes.x_plane,
                static_cast<float*>(io[2]) + image * planes.y_image + first, planes.y_plane);
  }
}

// A box with more samples along an axis than this in a bin reaches far beyond any image.
constexpr float kMaxSamples = 4096.0f;

SRT_INLINE int64_t SamplesOf(const RoiAlignArgs& args, float bin) {
  if (args.samples > 0) return args.samples;
  const float samples = std::ceil(bin);
  return samples > 0.0f ? static_cast<int64_t>(samples < kMaxSamples ? samples : kMaxSamples) : 0;
}

SRT_INLINE void RoiBlock(const RoiAlignArgs& args, const float* x, const float* roi, int64_t first,
                         int points, float* y, TapBlock* taps) {
  const SamplePlanes& planes = args.planes;
  const float offset = args.half_pixel ? 0.5f : 0.0f;
  float start[2];
  float bin[2];
  int64_t samples[2];
  for (int a = 0; a < 2; ++a) {
    start[a] = roi[1 - a] * args.scale - offset;
    float size = roi[3 - a] * args.scale - offset - start[a];
    if (!args.half_pixel && !(size > 1.0f)) size = 1.0f;
    bin[a] = size / static_cast<float>(args.out[a]);
    samples[a] = SamplesOf(args, bin[a]);
  }
  const bool is_max = args.mode == RoiMode::kMax;
  const int64_t count = samples[0] * samples[1];
  const float factor = is_max || count == 0 ? 1.0f : 1.0f / static_cast<float>(count);
  for (int64_t c = 0; c < planes.channels && count == 0; ++c) {
    for (int p = 0; p < points; ++p) y[c * planes.y_plane + p] = 0.0f;
  }
  for (int64_t s = 0; s < count; ++s) {
    const float step[2] = {static_cast<float>(s / samples[1]) + 0.5f,
                           static_cast<float>(s % samples[1]) + 0.5f};
    for (int p = 0; p < kBlockPoints; ++p) {
      const int64_t point = p < points ? first + p : first;
      const float at[2] = {static_cast<float>(point / args.out[1]),
                           static_cast<float>(point % args.out[1])};
      float place[2];
      for (int a = 0; a < 2; ++a) {
        place[a] = start[a] + at[a] * bin[a] + step[a] * bin[a] / static_cast<float>(samples[a]);
      }
      RoiTaps(place[0], place[1], args.in, factor, p, taps);
    }
    for (int64_t c = 0; c < planes.channels; ++c) {
      const float* from = x + c * planes.x_plane;
      float* to = y + c * planes.y_plane;
      for (int p = 0; p < points; p += Vec::kLanes) {
        const Mask m = LanesOf(points, p);
        const Vec before = s == 0 ? Zero() : LoadMask(to + p, m);
        Vec now;
        if (is_max) {
          now = MaxTaps(*taps, p, from, m);
          if (s != 0) now = Max(now, before);
        } else {
          now = SumTaps(*taps, 4, p, from, m, before);
        }
        StoreMask(to + p, m, now);
      }
    }
  }
}

static void RoiAlign(const void* args_block, void* const* io, int64_t begin, int64_t end,
                     void* scratch) {
  const RoiAlignArgs& args = *static_cast<const RoiAlignArgs*>(args_block);
  const int64_t blocks = BlocksOf(args.planes.points);
  for (int64_t item = begin; item < end; ++item) {
    const int64_t roi = item / blocks;
    const int64_t first = item % blocks * kBlockPoints;
    const int64_t image = static_cast<const int64_t*>(io[2])[roi];
    if (image < 0 || image >= args.images) {
      ReportIndex(io[4], image, args.images, 0);
      continue;
    }
    RoiBlock(args, static_cast<const float*>(io[0]) + image * args.planes.x_image,
             static_cast<const float*>(io[1]) + roi * 4, first,
             PointsOfBlock(args.planes.points, item % blocks),
             static_cast<float*>(io[3]) + roi * args.planes.y_image + first,
             static_cast<TapBlock*>(scratch));
  }
}

static void DeformColumns(const void* args_block, void* const* io, int64_t begin, int64_t end,
                          void* scratch) {
  const DeformArgs& args = *static_cast<const DeformArgs*>(args_block);
  const SamplePlanes& planes = args.planes;
  TapBlock* taps = static_cast<TapBlock*>(scratch);
  const int64_t blocks = BlocksOf(planes.points);
  const int64_t kernel = args.kernel[0] * args.kernel[1];
  for (int64_t item = begin; item < end; ++item) {
    const int64_t block = item % blocks;
    const int64_t k = item / blocks % kernel;
    const int64_t set = item / blocks / kernel;  // image and group
    const int64_t image = set / args.groups;
    const int64_t group = set % args.groups;
    const int points = PointsOfBlock(planes.points, block);
    const int64_t first = block * kBlockPoints;
    const float* dy = static_cast<const float*>(io[1]) + (set * kernel + k) * 2 * planes.points;
    const float* dx = dy + planes.points;
    const float* mask = io[2] == nullptr
                            ? nullptr
                            : static_cast<const float*>(io[2]) + (set * kernel + k) * planes.points;
    const int64_t from[2] = {k / args.kernel[1] * args.dilation[0] - args.pad[0],
                             k % args.kernel[1] * args.dilation[1] - args.pad[1]};
    for (int p = 0; p < kBlockPoints; ++p) {
      const int64_t point = p < points ? first + p : first;
      const int64_t h = point / args.out[1] * args.stride[0] + from[0];
      const int64_t w = point % args.out[1] * args.stride[1] + from[1];
      BilinearTaps(static_cast<float>(h) + dy[point], static_cast<float>(w) + dx[point], args.in,
                   mask == nullptr ? 1.0f : mask[point], p, taps);
    }
    const int64_t channel = group * planes.channels;
    WritePoints(
        *taps, 4, points, planes.channels,
        static_cast<const float*>(io[0]) + image * planes.x_image + channel * planes.x_plane,
        planes.x_plane,
        static_cast<float*>(io[3]) + image * planes.y_image +
            (channel * kernel + k) * planes.y_plane + first,
        planes.y_plane * kernel);
  }
}

}  // namespace SRT_ISA
}  // namespace sparsert
