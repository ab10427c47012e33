// Cumulate: selection and the kernel itself.
#include "kernels/cumulate/cumulate.h"

#include <type_traits>

#include "kernels/dtypes.h"
#include "kernels/select.h"

namespace sparsert {

#define SRT_KERNEL SRT_DECLARE_KERNEL
#include "kernels/cumulate/kernels.inc"

static const Kernel kKernels[] = {
#define SRT_KERNEL SRT_KERNEL_ROW
#include "kernels/cumulate/kernels.inc"
};

template <typename T>
static void Lines(const CumulateArgs& args, void* const* io, int64_t begin, int64_t end) {
  // Integers wrap around.
  using W = std::conditional_t<std::is_floating_point<T>::value, T,
                               std::conditional_t<sizeof(T) == 8, uint64_t, uint32_t>>;
  const int64_t step = args.reverse ? -args.inner : args.inner;
  for (int64_t item = begin; item < end; ++item) {
    int64_t at = item / args.inner * args.size * args.inner + item % args.inner;
    if (args.reverse) at += (args.size - 1) * args.inner;
    const T* x = static_cast<const T*>(io[0]) + at;
    T* y = static_cast<T*>(io[1]) + at;
    W total = args.product ? 1 : 0;
    for (int64_t n = 0; n < args.size; ++n) {
      const W before = total;
      const W v = static_cast<W>(x[n * step]);
      total = args.product ? total * v : total + v;
      y[n * step] = static_cast<T>(args.exclusive ? before : total);
    }
  }
}

void cumulate_any_scalar(const void* args_block, void* const* io, int64_t begin, int64_t end,
                         void*) {
  const CumulateArgs& args = *static_cast<const CumulateArgs*>(args_block);
  SRT_DISPATCH_NUMBER(args.dtype, T, return Lines<T>(args, io, begin, end))
}

int64_t CumulateItems(const CumulateArgs& args) { return args.outer * args.inner; }

bool SelectCumulate(const CumulateArgs& args, Isa isa, Kernel* kernel) {
  return IsNumber(args.dtype) && SelectKernel(kKernels, isa, kernel);
}

}  // namespace sparsert
