// Sample: reads planes at places between their elements, which data gives.
//
//   y[p] = sum_t weight[p, t] * x[offset[p, t]] for every channel, over the taps t of a point p
// of which there are 1 (nearest), 2 along each axis (linear) or 4 (cubic). A tap of weight 0 adds
// nothing, whatever x holds there. A place that is not a number counts as one far outside.
#pragma once

#include <cstddef>

#include "base/functions.h"
#include "base/tensor_desc.h"
#include "kernels/kernel.h"

namespace sparsert {

constexpr int kMaxSampleAxes = 3;

// Channels of images: of x, which is read, and of y, which is written.
struct SamplePlanes {
  int64_t channels;
  int64_t x_image;  // elements between images
  int64_t x_plane;  // elements between channels
  int64_t y_image;
  int64_t y_plane;
  int64_t points;  // of a plane of y
};

// GridSample. io: x [N, C, spatial]; grid, plain [N, points, axes], the last axis of x first, from
// -1 to 1 across x; y [N, C, points].
struct GridSampleArgs {
  SamplePlanes planes;
  ResizeMode mode;
  GridPadding padding;
  bool align_corners;
  int axes;
  int64_t in[kMaxSampleAxes];  // [axes]
  int64_t images;
};

// x and y: f32 of rank 3 to 5; cubic: 3 or 4.
GridSampleArgs MakeGridSampleArgs(ResizeMode mode, GridPadding padding, bool align_corners,
                                  const TensorDesc& x, const TensorDesc& y);
int64_t GridSampleItems(const GridSampleArgs& args);
bool SelectGridSample(const GridSampleArgs& args, Isa isa, Kernel* kernel);

// RoiAlign: boxes of x, each cut into out[0] x out[1] bins that hold the mean (or the largest
// weighted tap) of samples x samples places; samples 0: as many as the bin has elements.
// io: x [N, C, H, W]; rois, plain [R, 4] x1 y1 x2 y2; images, plain int64 [R]; y [R, C, out];
// IndexFault.
struct RoiAlignArgs {
  SamplePlanes planes;
  RoiMode mode;
  bool half_pixel;
  int64_t samples;
  float scale;
  int64_t images;
  int64_t rois;
  int64_t in[2];
  int64_t out[2];
};

RoiAlignArgs MakeRoiAlignArgs(RoiMode mode, bool half_pixel, int64_t samples, float scale,
                              const TensorDesc& x, const TensorDesc& y);
int64_t RoiAlignItems(const RoiAlignArgs& args);
bool SelectRoiAlign(const RoiAlignArgs& args, Isa isa, Kernel* kernel);

// The columns of a deformable convolution: tap k of channel c at every output, moved by an offset
// of its own and weighted by a mask. io: x [N, C, H, W]; offsets, plain [N, groups, taps, 2,
// outputs] (height, width); mask, plain [N, groups, taps, outputs] or nullptr; y [N, C * taps,
// outputs].
struct DeformArgs {
  SamplePlanes planes;  // channels: of a group
  int64_t images;
  int64_t groups;
  int64_t in[2];
  int64_t out[2];
  int64_t kernel[2];
  int64_t stride[2];
  int64_t dilation[2];
  int64_t pad[2];
};

int64_t DeformItems(const DeformArgs& args);
bool SelectDeform(const DeformArgs& args, Isa isa, Kernel* kernel);

// Bytes of one thread, of every kernel here.
size_t SampleScratchBytes();

}  // namespace sparsert
