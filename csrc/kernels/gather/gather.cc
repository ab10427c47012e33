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

namespace {

// One row, or a part of one: what the walk found, and what is the same for all.
struct GatherRow {
  const GatherArgs* args;
  const void* x;
  void* y;
  const void* index;
  int64_t n;
  void* fault;
};

// The element along the axis, or -1 where there is none. Known indices are in order.
template <typename Index, bool kKnown>
int64_t Resolve(const GatherRow& row, Index index) {
  if (kKnown) return index;
  const int64_t at = index < 0 ? index + row.args->axis_size : index;
  if (at >= 0 && at < row.args->axis_size) return at;
  ReportIndex(row.fault, index, row.args->axis_size, -row.args->axis_size);
  return -1;
}

template <typename T, typename Index, bool kKnown>
void Gather(const GatherRow& row) {
  const int64_t y_step = row.args->loop.row_strides[0];
  const int64_t x_step = row.args->loop.row_strides[1];
  const int64_t index_step = row.args->loop.row_strides[2];
  const int64_t axis_stride = row.args->axis_stride;
  T* to = static_cast<T*>(row.y);
  const T* from = static_cast<const T*>(row.x);
  const Index* index = static_cast<const Index*>(row.index);
  if (index_step != 0) {
    for (int64_t i = 0; i < row.n; ++i) {
      const int64_t at = Resolve<Index, kKnown>(row, index[i * index_step]);
      if (at >= 0) to[i * y_step] = from[i * x_step + at * axis_stride];
    }
    return;
  }
  const int64_t at = Resolve<Index, kKnown>(row, *index);
  if (at < 0) return;
  from += at * axis_stride;
  if (y_step == 1 && x_step == 1) {
    memcpy(to, from, static_cast<size_t>(row.n) * sizeof(T));
  } else {
    for (int64_t i = 0; i < row.n; ++i) to[i * y_step] = from[i * x_step];
  }
}

using RowFn = void (*)(const GatherRow& row);

RowFn FindRow(const GatherArgs& args) {
  SRT_DISPATCH_BYTES(args.element_bytes, T, {
    if (args.indices != nullptr) return Gather<T, int64_t, true>;
    return args.index_bytes == 4 ? Gather<T, int32_t, false> : Gather<T, int64_t, false>;
  })
  return nullptr;
}

}  // namespace

void gather_any_scalar(const void* args_block, void* const* io, int64_t begin, int64_t end, void*) {
  const GatherArgs& args = *static_cast<const GatherArgs*>(args_block);
  const RowFn gather = FindRow(args);
  const int64_t bytes = args.element_bytes;
  const bool known = args.indices != nullptr;
  const int64_t index_bytes = known ? 8 : args.index_bytes;
  const auto* indices =
      known ? reinterpret_cast<const char*>(args.indices) : static_cast<const char*>(io[2]);
  GatherRow row = {&args, nullptr, nullptr, nullptr, 0, known ? nullptr : io[3]};
  ForEachRow(args.loop, begin, end, [&](const int64_t* offsets, int64_t n) {
    row.x = static_cast<const char*>(io[0]) + offsets[1] * bytes;
    row.y = static_cast<char*>(io[1]) + offsets[0] * bytes;
    row.index = indices + offsets[2] * index_bytes;
    row.n = n;
    gather(row);
  });
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
