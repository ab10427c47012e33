// LayerNorm: arguments and selection.
#include "kernels/layer_norm/layer_norm.h"

#include "kernels/select.h"

namespace sparsert {

#define SRT_KERNEL SRT_DECLARE_KERNEL
#include "kernels/layer_norm/kernels.inc"

static const Kernel kKernels[] = {
#define SRT_KERNEL SRT_KERNEL_ROW
#include "kernels/layer_norm/kernels.inc"
};

// The stride of dimensions [first, rank) walked in row-major order. False: they have none.
static bool CommonStride(const TensorDesc& x, int first, int64_t* step) {
  *step = 1;
  int64_t expected = -1;
  for (int d = x.shape.rank - 1; d >= first; --d) {
    if (x.shape.dims[d] == 1) continue;
    if (expected < 0) {
      *step = x.strides[d];
    } else if (x.strides[d] != expected) {
      return false;
    }
    expected = x.strides[d] * x.shape.dims[d];
  }
  return true;
}

bool MakeLayerNormArgs(bool centred, float epsilon, const TensorDesc& x, int first,
                       const TensorDesc& y, LayerNormArgs* args) {
  args->centred = centred;
  args->epsilon = epsilon;
  args->count = 1;
  Shape rest = x.shape;
  for (int d = first; d < x.shape.rank; ++d) {
    args->count *= x.shape.dims[d];
    rest.dims[d] = 1;
  }
  if (!CommonStride(x, first, &args->x_step) || !CommonStride(y, first, &args->y_step)) {
    return false;
  }
  args->along_rows = args->x_step == 1 && args->y_step == 1;
  args->rest = MakeLoop<2>(rest, {y.strides, x.strides}, false);
  if (!args->along_rows && (args->rest.row_strides[0] != 1 || args->rest.row_strides[1] != 1)) {
    return false;
  }
  const int64_t share = kRowChunk / 4 / (args->count < 1 ? 1 : args->count);
  SetChunk(&args->rest, args->along_rows || share > 64 ? share : 64);
  return true;
}

int64_t LayerNormItems(const LayerNormArgs& args) {
  return args.count == 0 ? 0 : LoopItems(args.rest);
}

bool SelectLayerNorm(const LayerNormArgs&, Isa isa, Kernel* kernel) {
  return SelectKernel(kKernels, isa, kernel);
}

}  // namespace sparsert
