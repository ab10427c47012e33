// TopK: selection and the kernel itself.
#include "kernels/topk/topk.h"

#include <algorithm>

#include "kernels/dtypes.h"
#include "kernels/select.h"

namespace sparsert {

#define SRT_KERNEL SRT_DECLARE_KERNEL
#include "kernels/topk/kernels.inc"

static const Kernel kKernels[] = {
#define SRT_KERNEL SRT_KERNEL_ROW
#include "kernels/topk/kernels.inc"
};

template <typename T>
static void Top(const TopkArgs& args, void* const* io, int64_t begin, int64_t end, void* scratch) {
  int64_t* order = static_cast<int64_t*>(scratch);
  for (int64_t item = begin; item < end; ++item) {
    const int64_t o = item / args.inner;
    const int64_t i = item % args.inner;
    const T* x = static_cast<const T*>(io[0]) + o * args.size * args.inner + i;
    for (int64_t n = 0; n < args.size; ++n) order[n] = n;
    std::partial_sort(order, order + args.k, order + args.size, [&](int64_t a, int64_t b) {
      const T left = x[a * args.inner];
      const T right = x[b * args.inner];
      const bool left_nan = left != left;
      const bool right_nan = right != right;
      if (left_nan != right_nan) return left_nan;
      if (left == right || left_nan) return a < b;
      return args.largest ? left > right : left < right;
    });
    T* values = io[1] == nullptr ? nullptr : static_cast<T*>(io[1]) + o * args.k * args.inner + i;
    int64_t* positions =
        io[2] == nullptr ? nullptr : static_cast<int64_t*>(io[2]) + o * args.k * args.inner + i;
    for (int64_t n = 0; n < args.k; ++n) {
      if (values != nullptr) values[n * args.inner] = x[order[n] * args.inner];
      if (positions != nullptr) positions[n * args.inner] = order[n];
    }
  }
}

void topk_any_scalar(const void* args_block, void* const* io, int64_t begin, int64_t end,
                     void* scratch) {
  const TopkArgs& args = *static_cast<const TopkArgs*>(args_block);
  SRT_DISPATCH_NUMBER(args.dtype, T, return Top<T>(args, io, begin, end, scratch))
}

int64_t TopkItems(const TopkArgs& args) { return args.outer * args.inner; }

size_t TopkScratchBytes(const TopkArgs& args) {
  return static_cast<size_t>(args.size) * sizeof(int64_t);
}

bool SelectTopk(const TopkArgs& args, Isa isa, Kernel* kernel) {
  return IsNumber(args.dtype) && SelectKernel(kKernels, isa, kernel);
}

}  // namespace sparsert
