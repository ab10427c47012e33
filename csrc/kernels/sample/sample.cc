// Sample: arguments and selection.
#include "kernels/sample/sample.h"

#include "kernels/sample/taps.h"
#include "kernels/select.h"

namespace sparsert {

#define SRT_KERNEL SRT_DECLARE_KERNEL
#define SRT_ROI_KERNEL SRT_DECLARE_KERNEL
#define SRT_DEFORM_KERNEL SRT_DECLARE_KERNEL
#include "kernels/sample/kernels.inc"

#define SRT_NO_ROW(function, isa)

static const Kernel kGridKernels[] = {
#define SRT_KERNEL SRT_KERNEL_ROW
#define SRT_ROI_KERNEL SRT_NO_ROW
#define SRT_DEFORM_KERNEL SRT_NO_ROW
#include "kernels/sample/kernels.inc"
};

static const Kernel kRoiKernels[] = {
#define SRT_KERNEL SRT_NO_ROW
#define SRT_ROI_KERNEL SRT_KERNEL_ROW
#define SRT_DEFORM_KERNEL SRT_NO_ROW
#include "kernels/sample/kernels.inc"
};

static const Kernel kDeformKernels[] = {
#define SRT_KERNEL SRT_NO_ROW
#define SRT_ROI_KERNEL SRT_NO_ROW
#define SRT_DEFORM_KERNEL SRT_KERNEL_ROW
#include "kernels/sample/kernels.inc"
};

static SamplePlanes PlanesOf(const TensorDesc& x, const TensorDesc& y) {
  return {x.shape.dims[1], x.strides[0], x.strides[1], y.strides[0], y.strides[1], y.plane()};
}

GridSampleArgs MakeGridSampleArgs(ResizeMode mode, GridPadding padding, bool align_corners,
                                  const TensorDesc& x, const TensorDesc& y) {
  GridSampleArgs args = {};
  args.planes = PlanesOf(x, y);
  args.mode = mode;
  args.padding = padding;
  args.align_corners = align_corners;
  args.axes = x.shape.rank - 2;
  for (int a = 0; a < args.axes; ++a) args.in[a] = x.shape.dims[2 + a];
  args.images = x.shape.dims[0];
  return args;
}

int64_t GridSampleItems(const GridSampleArgs& args) {
  return args.images * BlocksOf(args.planes.points);
}

bool SelectGridSample(const GridSampleArgs&, Isa isa, Kernel* kernel) {
  return SelectKernel(kGridKernels, isa, kernel);
}

RoiAlignArgs MakeRoiAlignArgs(RoiMode mode, bool half_pixel, int64_t samples, float scale,
                              const TensorDesc& x, const TensorDesc& y) {
  RoiAlignArgs args = {};
  args.planes = PlanesOf(x, y);
  args.mode = mode;
  args.half_pixel = half_pixel;
  args.samples = samples;
  args.scale = scale;
  args.images = x.shape.dims[0];
  args.rois = y.shape.dims[0];
  for (int a = 0; a < 2; ++a) {
    args.in[a] = x.shape.dims[2 + a];
    args.out[a] = y.shape.dims[2 + a];
  }
  return args;
}

int64_t RoiAlignItems(const RoiAlignArgs& args) { return args.rois * BlocksOf(args.planes.points); }

bool SelectRoiAlign(const RoiAlignArgs&, Isa isa, Kernel* kernel) {
  return SelectKernel(kRoiKernels, isa, kernel);
}

int64_t DeformItems(const DeformArgs& args) {
  return args.images * args.groups * args.kernel[0] * args.kernel[1] * BlocksOf(args.planes.points);
}

bool SelectDeform(const DeformArgs&, Isa isa, Kernel* kernel) {
  return SelectKernel(kDeformKernels, isa, kernel);
}

size_t SampleScratchBytes() { return sizeof(TapBlock); }

}  // namespace sparsert
