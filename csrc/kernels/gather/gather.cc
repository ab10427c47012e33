// Gather: arguments, selection and the kernel itself.
#include "kernels/gather/gather.h"

#include <cinttypes>
#include <cstring>

#include "base/fault.h"
#include "kernels/dtypes.h"
#include "kernels/select.h"

namespace sparsert {

#define SRT_KERNEL SRT_DECLARE_KERNEL
#include "kernels/gather/kernels.inc"

static const Kernel kKernels[] = {
#define SRT_KERNEL SRT_KERNEL_ROW
#include "kernels/gather/kernels.inc"
};

template <typename T>
static void GatherRows(const GatherArgs& args, const void* x, void* y, int64_t begin, int64_t end) {
  const int64_t y_step = args.loop.row_strides[0];
  const int64_t x_step = args.loop.row_strides[1];
  const int64_t index_step = args.loop.row_strides[2];
  ForEachRow(args.loop, begin, end, [&](const int64_t* offsets, int64_t n) {
    T* to = static_cast<T*>(y) + offsets[0];
    const T* from = static_cast<const T*>(x) + offsets[1];
    const int64_t* index = args.indices + offsets[2];
    if (index_step == 0) {
      from += *index * args.axis_stride;
      if (y_step == 1 && x_step == 1) {
        memcpy(to, from, static_cast<size_t>(n) * sizeof(T));
      } else {
        for (int64_t i = 0; i < n; ++i) to[i * y_step] = from[i * x_step];
      }
    } else {
      for (int64_t i = 0; i < n; ++i) {
        to[i * y_step] = from[i * x_step + index[i * index_step] * args.axis_stride];
      }
    }
  });
}

// As GatherRows, with indices that are read now.
template <typename T, typename Index>
static void GatherIndexed(const GatherArgs& args, void* const* io, int64_t begin, int64_t end) {
  const int64_t y_step = args.loop.row_strides[0];
  const int64_t x_step = args.loop.row_strides[1];
  const int64_t index_step = args.loop.row_strides[2];
  const auto resolve = [&](Index index) {
    const int64_t at = index < 0 ? index + args.axis_size : index;
    if (at >= 0 && at < args.axis_size) return at;
    ReportIndex(io[3], index, args.axis_size, -args.axis_size);
    return int64_t{-1};
  };
  ForEachRow(args.loop, begin, end, [&](const int64_t* offsets, int64_t n) {
    T* to = static_cast<T*>(io[1]) + offsets[0];
    const T* from = static_cast<const T*>(io[0]) + offsets[1];
    const Index* index = static_cast<const Index*>(io[2]) + offsets[2];
    if (index_step == 0) {
      const int64_t at = resolve(*index);
      if (at < 0) return;
      if (y_step == 1 && x_step == 1) {
        memcpy(to, from + at * args.axis_stride, static_cast<size_t>(n) * sizeof(T));
      } else {
        from += at * args.axis_stride;
        for (int64_t i = 0; i < n; ++i) to[i * y_step] = from[i * x_step];
      }
    } else {
      for (int64_t i = 0; i < n; ++i) {
        const int64_t at = resolve(index[i * index_step]);
        if (at >= 0) to[i * y_step] = from[i * x_step + at * args.axis_stride];
      }
    }
  });
}

void gather_any_scalar(const void* args_block, void* const* io, int64_t begin, int64_t end, void*) {
  const GatherArgs& args = *static_cast<const GatherArgs*>(args_block);
  if (args.indices == nullptr && args.index_bytes == 4) {
    SRT_DISPATCH_BYTES(args.element_bytes, T,
                       return GatherIndexed<T, int32_t>(args, io, begin, end))
  }
  if (args.indices == nullptr) {
    SRT_DISPATCH_BYTES(args.element_bytes, T,
                       return GatherIndexed<T, int64_t>(args, io, begin, end))
  }
  SRT_DISPATCH_BYTES(args.element_bytes, T, return GatherRows<T>(args, io[0], io[1], begin, end))
}

Status NormalizeIndices(const int64_t* indices, int64_t n, int64_t size, int64_t* out) {
  for (int64_t i = 0; i < n; ++i) {
    const int64_t index = indices[i];
    if (index < -size || index >= size) {
      return Status::Error(StatusCode::kInvalidArgument,
                           "index %" PRId64 " at position %" PRId64 " is outside of [%" PRId64
                           ", %" PRId64 ")",
                           index, i, -size, size);
    }
    out[i] = index < 0 ? index + size : index;
  }
  return Status::Ok();
}

GatherArgs MakeGatherArgs(const TensorDesc& x, int axis, const int64_t* known,
                          const TensorDesc& indices, const TensorDesc& y) {
  GatherArgs args;
  args.element_bytes = static_cast<int>(DTypeSize(x.dtype));
  args.indices = known;
  args.index_bytes = static_cast<int>(DTypeSize(indices.dtype));
  args.axis_size = x.shape.dims[axis];
  args.axis_stride = x.strides[axis];
  const Shape& indices_shape = indices.shape;
  const TensorDesc positions = known == nullptr ? indices : PlainDesc(DType::kI64, indices_shape);
  int64_t x_strides[kMaxRank] = {};
  int64_t index_strides[kMaxRank] = {};
  for (int d = 0; d < y.shape.rank; ++d) {
    if (d < axis) {
      x_strides[d] = x.strides[d];
    } else if (d < axis + indices_shape.rank) {
      index_strides[d] = positions.strides[d - axis];
    } else {
      x_strides[d] = x.strides[d - indices_shape.rank + 1];
    }
  }
  args.loop = MakeLoop<3>(y.shape, {y.strides, x_strides, index_strides}, false);
  return args;
}

int64_t GatherItems(const GatherArgs& args) { return LoopItems(args.loop); }

bool SelectGather(const GatherArgs&, Isa isa, Kernel* kernel) {
  return SelectKernel(kKernels, isa, kernel);
}

}  // namespace sparsert
