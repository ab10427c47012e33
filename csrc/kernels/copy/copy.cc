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

CopyArgs MakeCopyArgs(DType dtype, const Shape& shape, const int64_t* x_strides,
                      const int64_t* y_strides) {
  CopyArgs args = {};
  args.element_bytes = static_cast<int>(DTypeSize(dtype));
  args.elements = shape.elements();
  args.loop = MakeLoop<2>(shape, {y_strides, x_strides}, false);
  FindTiles(&args);
  return args;
}

int64_t CopyItems(const CopyArgs& args) { return args.elements == 0 ? 0 : LoopItems(args.loop); }

bool SelectCopy(const CopyArgs&, Isa isa, Kernel* kernel) {
  return SelectKernel(kKernels, isa, kernel);
}

}  // namespace sparsert
