// Where: arguments, selection and the kernel itself.
#include "kernels/where/where.h"

#include "kernels/select.h"

namespace sparsert {

#define SRT_KERNEL SRT_DECLARE_KERNEL
#include "kernels/where/kernels.inc"

static const Kernel kKernels[] = {
#define SRT_KERNEL SRT_KERNEL_ROW
#include "kernels/where/kernels.inc"
};

// A and B are 1 where a and b are read along the row, 0 where one element serves all of it: such
// loops become vectors.
template <typename T, int64_t A, int64_t B>
static void ChooseRow(const uint8_t* condition, const T* a, const T* b, T* y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    const T yes = a[i * A];
    const T no = b[i * B];
    y[i] = condition[i] != 0 ? yes : no;
  }
}

template <typename T>
static void WhereRows(const WhereArgs& args, void* const* io, int64_t begin, int64_t end) {
  const int64_t* steps = args.loop.row_strides;
  ForEachRow(args.loop, begin, end, [&](const int64_t* offsets, int64_t n) {
    const uint8_t* condition = static_cast<const uint8_t*>(io[0]) + offsets[1];
    const T* a = static_cast<const T*>(io[1]) + offsets[2];
    const T* b = static_cast<const T*>(io[2]) + offsets[3];
    T* y = static_cast<T*>(io[3]) + offsets[0];
    if (steps[0] == 1 && steps[1] == 1 && (steps[2] | steps[3]) == 1) {
      if (steps[2] == 0) return ChooseRow<T, 0, 1>(condition, a, b, y, n);
      if (steps[3] == 0) return ChooseRow<T, 1, 0>(condition, a, b, y, n);
      if (steps[2] == steps[3]) return ChooseRow<T, 1, 1>(condition, a, b, y, n);
    }
    for (int64_t i = 0; i < n; ++i) {
      y[i * steps[0]] = condition[i * steps[1]] != 0 ? a[i * steps[2]] : b[i * steps[3]];
    }
  });
}

void where_any_scalar(const void* args_block, void* const* io, int64_t begin, int64_t end, void*) {
  const WhereArgs& args = *static_cast<const WhereArgs*>(args_block);
  switch (args.element_bytes) {
    case 1:
      return WhereRows<uint8_t>(args, io, begin, end);
    case 2:
      return WhereRows<uint16_t>(args, io, begin, end);
    case 4:
      return WhereRows<uint32_t>(args, io, begin, end);
    default:
      return WhereRows<uint64_t>(args, io, begin, end);
  }
}

WhereArgs MakeWhereArgs(const TensorDesc& condition, const TensorDesc& a, const TensorDesc& b,
                        const TensorDesc& y) {
  WhereArgs args;
  args.element_bytes = static_cast<int>(DTypeSize(y.dtype));
  int64_t condition_strides[kMaxRank];
  int64_t a_strides[kMaxRank];
  int64_t b_strides[kMaxRank];
  BroadcastStrides(condition, y.shape, condition_strides);
  BroadcastStrides(a, y.shape, a_strides);
  BroadcastStrides(b, y.shape, b_strides);
  args.loop = MakeLoop<4>(y.shape, {y.strides, condition_strides, a_strides, b_strides}, false);
  return args;
}

int64_t WhereItems(const WhereArgs& args) { return LoopItems(args.loop); }

bool SelectWhere(const WhereArgs&, Isa isa, Kernel* kernel) {
  return SelectKernel(kKernels, isa, kernel);
}

}  // namespace sparsert
