// Copy: arguments and selection.
#include "kernels/copy/copy.h"

#include "kernels/select.h"

namespace sparsert {

#define SRT_KERNEL SRT_DECLARE_KERNEL
#include "kernels/copy/kernels.inc"

static const Kernel kKernels[] = {
#define SRT_KERNEL SRT_KERNEL_ROW
#include "kernels/copy/kernels.inc"
};

namespace {

constexpr int64_t kTileRows = 256;  // row elements of an item that is copied in tiles

// The planes of a tensor; one plane of everything when there is no padding.
PlaneSequence PlanesOf(const TensorDesc& x) {
  const int64_t elements = x.shape.elements();
  if (x.shape.rank < 3 || x.is_plain()) return {elements, elements};
  return {x.plane(), x.strides[1]};
}

// Splits off the dimension along which x is contiguous, if rows of x are not.
void FindTiles(CopyArgs* args) {
  Loop<2>& loop = args->loop;
  if (loop.row_strides[0] != 1 || loop.row_strides[1] == 1 || loop.row < 2) return;
  for (int d = 0; d < loop.rank; ++d) {
    if (loop.strides[1][d] != 1 || loop.dims[d] < 4) continue;
    args->tile_count = loop.dims[d];
    args->tile_y_stride = loop.strides[0][d];
    loop.rows /= loop.dims[d];
    for (int k = d + 1; k < loop.rank; ++k) {
      loop.dims[k - 1] = loop.dims[k];
      loop.strides[0][k - 1] = loop.strides[0][k];
      loop.strides[1][k - 1] = loop.strides[1][k];
    }
    --loop.rank;
    SetChunk(&loop, kTileRows);
    return;
  }
}

}  // namespace

CopyArgs MakeCopyArgs(DType dtype, const Shape& shape, const int64_t* x_strides, int64_t x_offset,
                      const int64_t* y_strides, int64_t y_offset) {
  CopyArgs args = {};
  args.element_bytes = static_cast<int>(DTypeSize(dtype));
  args.x_offset = x_offset;
  args.y_offset = y_offset;
  args.elements = shape.elements();
  args.loop = MakeLoop<2>(shape, {y_strides, x_strides}, false);
  FindTiles(&args);
  return args;
}

CopyArgs MakeTransposeArgs(const TensorDesc& x, const int* perm, const TensorDesc& y) {
  int64_t x_strides[kMaxRank];
  for (int d = 0; d < y.shape.rank; ++d) x_strides[d] = x.strides[perm[d]];
  return MakeCopyArgs(x.dtype, y.shape, x_strides, 0, y.strides, 0);
}

CopyArgs MakeSliceArgs(const TensorDesc& x, const int64_t* start, const int64_t* step,
                       const TensorDesc& y) {
  int64_t x_strides[kMaxRank];
  int64_t x_offset = 0;
  for (int d = 0; d < y.shape.rank; ++d) {
    x_strides[d] = x.strides[d] * step[d];
    x_offset += x.strides[d] * start[d];
  }
  return MakeCopyArgs(x.dtype, y.shape, x_strides, x_offset, y.strides, 0);
}

CopyArgs MakeConcatArgs(const TensorDesc& x, int axis, int64_t first, const TensorDesc& y) {
  return MakeCopyArgs(x.dtype, x.shape, x.strides, 0, y.strides, first * y.strides[axis]);
}

CopyArgs MakeSplitArgs(const TensorDesc& x, int axis, int64_t first, const TensorDesc& y) {
  return MakeCopyArgs(x.dtype, y.shape, x.strides, first * x.strides[axis], y.strides, 0);
}

CopyArgs MakeExpandArgs(const TensorDesc& x, const TensorDesc& y) {
  int64_t x_strides[kMaxRank];
  BroadcastStrides(x, y.shape, x_strides);
  return MakeCopyArgs(x.dtype, y.shape, x_strides, 0, y.strides, 0);
}

CopyArgs MakeReshapeArgs(const TensorDesc& x, const TensorDesc& y) {
  CopyArgs args = {};
  args.reshapes = true;
  args.element_bytes = static_cast<int>(DTypeSize(x.dtype));
  args.x_planes = PlanesOf(x);
  args.y_planes = PlanesOf(y);
  args.elements = x.shape.elements();
  return args;
}

int64_t CopyItems(const CopyArgs& args) {
  if (args.elements == 0) return 0;
  return args.reshapes ? (args.elements + kRowChunk - 1) / kRowChunk : LoopItems(args.loop);
}

bool SelectCopy(const CopyArgs&, Isa isa, Kernel* kernel) {
  return SelectKernel(kKernels, isa, kernel);
}

}  // namespace sparsert
