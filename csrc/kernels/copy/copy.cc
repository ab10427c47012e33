// Copy: arguments, selection and the kernel itself, which no instruction set makes faster.
#include "kernels/copy/copy.h"

#include <cstring>

#include "kernels/select.h"

namespace sparsert {

#define SRT_KERNEL SRT_DECLARE_KERNEL
#include "kernels/copy/kernels.inc"

static const Kernel kKernels[] = {
#define SRT_KERNEL SRT_KERNEL_ROW
#include "kernels/copy/kernels.inc"
};

namespace {

constexpr int64_t kTile = 16;
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

template <typename T>
void CopyRow(const T* x, int64_t x_stride, T* y, int64_t y_stride, int64_t n) {
  if (x_stride == 1 && y_stride == 1) {
    memcpy(y, x, static_cast<size_t>(n) * sizeof(T));
  } else if (y_stride == 1 && x_stride == 0) {
    const T value = *x;
    for (int64_t i = 0; i < n; ++i) y[i] = value;
  } else if (y_stride == 1) {
    for (int64_t i = 0; i < n; ++i) y[i] = x[i * x_stride];
  } else {
    for (int64_t i = 0; i < n; ++i) y[i * y_stride] = x[i * x_stride];
  }
}

// y[j * y_stride + i] = x[i * x_stride + j] for i < n, j < count.
template <typename T>
void CopyTiles(const T* x, int64_t x_stride, T* y, int64_t y_stride, int64_t n, int64_t count) {
  if (n == 2 && y_stride == 2) {  // two rows interleaved: a form that compilers vectorise
    const T* second = x + x_stride;
    for (int64_t j = 0; j < count; ++j) {
      y[2 * j] = x[j];
      y[2 * j + 1] = second[j];
    }
    return;
  }
  for (int64_t i0 = 0; i0 < n; i0 += kTile) {
    const int64_t i1 = i0 + kTile < n ? i0 + kTile : n;
    for (int64_t j0 = 0; j0 < count; j0 += kTile) {
      const int64_t j1 = j0 + kTile < count ? j0 + kTile : count;
      for (int64_t j = j0; j < j1; ++j) {
        T* to = y + j * y_stride;
        const T* from = x + j;
        for (int64_t i = i0; i < i1; ++i) to[i] = from[i * x_stride];
      }
    }
  }
}

template <typename T>
void CopyLoop(const CopyArgs& args, const void* x, void* y, int64_t begin, int64_t end) {
  const T* from = static_cast<const T*>(x) + args.x_offset;
  T* to = static_cast<T*>(y) + args.y_offset;
  const Loop<2>& loop = args.loop;
  ForEachRow(loop, begin, end, [&](const int64_t* offsets, int64_t n) {
    if (args.tile_count != 0) {
      CopyTiles(from + offsets[1], loop.row_strides[1], to + offsets[0], args.tile_y_stride, n,
                args.tile_count);
    } else {
      CopyRow(from + offsets[1], loop.row_strides[1], to + offsets[0], loop.row_strides[0], n);
    }
  });
}

void CopyPlanes(const CopyArgs& args, const void* x, void* y, int64_t begin, int64_t end) {
  const int64_t bytes = args.element_bytes;
  int64_t at = begin * kRowChunk;
  const int64_t stop = end * kRowChunk < args.elements ? end * kRowChunk : args.elements;
  while (at < stop) {
    const int64_t x_in = at % args.x_planes.plane;
    const int64_t y_in = at % args.y_planes.plane;
    int64_t n = stop - at;
    if (n > args.x_planes.plane - x_in) n = args.x_planes.plane - x_in;
    if (n > args.y_planes.plane - y_in) n = args.y_planes.plane - y_in;
    const int64_t from = at / args.x_planes.plane * args.x_planes.stride + x_in;
    const int64_t to = at / args.y_planes.plane * args.y_planes.stride + y_in;
    memcpy(static_cast<char*>(y) + to * bytes, static_cast<const char*>(x) + from * bytes,
           static_cast<size_t>(n * bytes));
    at += n;
  }
}

}  // namespace

void copy_any_scalar(const void* args_block, void* const* io, int64_t begin, int64_t end, void*) {
  const CopyArgs& args = *static_cast<const CopyArgs*>(args_block);
  if (args.reshapes) return CopyPlanes(args, io[0], io[1], begin, end);
  switch (args.element_bytes) {
    case 1:
      return CopyLoop<uint8_t>(args, io[0], io[1], begin, end);
    case 2:
      return CopyLoop<uint16_t>(args, io[0], io[1], begin, end);
    case 4:
      return CopyLoop<uint32_t>(args, io[0], io[1], begin, end);
    default:
      return CopyLoop<uint64_t>(args, io[0], io[1], begin, end);
  }
}

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
