// Nearest resize: a kernel for elements of any type, which no instruction set makes faster.
#include <cstring>

#include "kernels/define.h"
#include "kernels/resize/resize.h"

namespace sparsert {
namespace scalar {

template <typename T>
static void NearestRows(const ResizeArgs& args, const T* x, T* y, int64_t begin, int64_t end) {
  const int last = args.rank - 1;
  const int64_t n = args.rank == 0 ? 1 : args.dims[last];
  const int32_t one = 0;
  const int32_t* index = args.rank == 0 ? &one : args.index[last];
  const int64_t x_step = args.rank == 0 ? 1 : args.x_strides[last];
  const int64_t y_step = args.rank == 0 ? 1 : args.y_strides[last];
  const T* previous_from = nullptr;
  const T* previous_to = nullptr;
  for (int64_t item = begin; item < end; ++item) {
    int64_t left = item;
    const T* from = x;
    T* to = y;
    for (int d = last - 1; d >= 0; --d) {
      const int64_t i = left % args.dims[d];
      left /= args.dims[d];
      from += args.index[d][i] * args.x_strides[d];
      to += i * args.y_strides[d];
    }
    if (y_step == 1 && from == previous_from) {
      memcpy(to, previous_to, static_cast<size_t>(n) * sizeof(T));
    } else if (y_step == 1 && x_step == 1) {
      for (int64_t i = 0; i < n; ++i) to[i] = from[index[i]];
    } else {
      for (int64_t i = 0; i < n; ++i) to[i * y_step] = from[index[i] * x_step];
    }
    previous_from = from;
    previous_to = to;
  }
}

static void ResizeNearest(const void* args_block, void* const* io, int64_t begin, int64_t end,
                          void*) {
  const ResizeArgs& args = *static_cast<const ResizeArgs*>(args_block);
  const void* x = io[0];
  void* y = io[1];
  switch (args.element_bytes) {
    case 1:
      return NearestRows(args, static_cast<const uint8_t*>(x), static_cast<uint8_t*>(y), begin,
                         end);
    case 2:
      return NearestRows(args, static_cast<const uint16_t*>(x), static_cast<uint16_t*>(y), begin,
                         end);
    case 4:
      return NearestRows(args, static_cast<const uint32_t*>(x), static_cast<uint32_t*>(y), begin,
                         end);
    default:
      return NearestRows(args, static_cast<const uint64_t*>(x), static_cast<uint64_t*>(y), begin,
                         end);
  }
}

}  // namespace scalar
}  // namespace sparsert

#define SRT_ISA scalar
SRT_DEFINE_KERNEL(resize_nearest_any_scalar, ResizeNearest)
