// Pick: arguments, selection and the kernel itself.
#include "kernels/pick/pick.h"

#include <cstring>

#include "kernels/dtypes.h"
#include "kernels/select.h"

namespace sparsert {

#define SRT_KERNEL SRT_DECLARE_KERNEL
#include "kernels/pick/kernels.inc"

static const Kernel kKernels[] = {
#define SRT_KERNEL SRT_KERNEL_ROW
#include "kernels/pick/kernels.inc"
};

template <typename T>
static void PickRows(const PickArgs& args, void* const* io, int64_t begin, int64_t end) {
  const T* x = static_cast<const T*>(io[0]);
  T* y = static_cast<T*>(io[2]);
  const int64_t row = args.row;
  if (row == 1) {
    ForEachPlace(args, io[1], begin, end, io[3],
                 [=](int64_t t, int64_t place) { y[t] = x[place]; });
    return;
  }
  ForEachPlace(args, io[1], begin, end, io[3], [=](int64_t t, int64_t place) {
    memcpy(y + t * row, x + place, static_cast<size_t>(row) * sizeof(T));
  });
}

void pick_any_scalar(const void* args_block, void* const* io, int64_t begin, int64_t end, void*) {
  const PickArgs& args = *static_cast<const PickArgs*>(args_block);
  SRT_DISPATCH_BYTES(args.element_bytes, T, return PickRows<T>(args, io, begin, end))
}

static PickArgs PickOf(const TensorDesc& x, DType index_dtype) {
  PickArgs args = {};
  args.element_bytes = static_cast<int>(DTypeSize(x.dtype));
  args.index_dtype = index_dtype;
  return args;
}

PickArgs MakeGatherElementsArgs(const TensorDesc& x, int axis, const TensorDesc& indices) {
  PickArgs args = PickOf(x, indices.dtype);
  const TensorDesc plain = PlainDesc(x.dtype, x.shape);
  args.rank = indices.shape.rank;
  for (int d = 0; d < args.rank; ++d) {
    args.dims[d] = indices.shape.dims[d];
    args.base_stride[d] = d == axis ? 0 : plain.strides[d];
  }
  args.depth = 1;
  args.size[0] = x.shape.dims[axis];
  args.stride[0] = plain.strides[axis];
  args.tuples = indices.shape.elements();
  args.row = 1;
  return args;
}

PickArgs MakeGatherNdArgs(const TensorDesc& x, int batch_dims, const TensorDesc& indices) {
  PickArgs args = PickOf(x, indices.dtype);
  const TensorDesc plain = PlainDesc(x.dtype, x.shape);
  args.rank = indices.shape.rank - 1;
  args.tuples = 1;
  for (int d = 0; d < args.rank; ++d) {
    args.dims[d] = indices.shape.dims[d];
    args.base_stride[d] = d < batch_dims ? plain.strides[d] : 0;
    args.tuples *= args.dims[d];
  }
  args.depth = static_cast<int>(indices.shape.dims[args.rank]);
  args.row = 1;
  for (int d = batch_dims; d < x.shape.rank; ++d) {
    const int j = d - batch_dims;
    if (j < args.depth) {
      args.size[j] = x.shape.dims[d];
      args.stride[j] = plain.strides[d];
    } else {
      args.row *= x.shape.dims[d];
    }
  }
  return args;
}

bool SelectPick(const PickArgs&, Isa isa, Kernel* kernel) {
  return SelectKernel(kKernels, isa, kernel);
}

}  // namespace sparsert
