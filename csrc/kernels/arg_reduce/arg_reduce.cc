// ArgReduce: selection and the kernel itself.
#include "kernels/arg_reduce/arg_reduce.h"

#include "kernels/dtypes.h"
#include "kernels/select.h"

namespace sparsert {

#define SRT_KERNEL SRT_DECLARE_KERNEL
#include "kernels/arg_reduce/kernels.inc"

static const Kernel kKernels[] = {
#define SRT_KERNEL SRT_KERNEL_ROW
#include "kernels/arg_reduce/kernels.inc"
};

// Whether an element of a block could take the place of `best`: a scan that compilers vectorise.
// Hardly a block of a long row holds one.
constexpr int64_t kBlock = 64;

template <typename T>
static bool AnyBeyond(const T* block, T best, bool largest, bool last) {
  uint32_t any = 0;
  if (largest) {
    for (int64_t i = 0; i < kBlock; ++i) any |= !(block[i] <= best) ? 1u : 0u;
  } else {
    for (int64_t i = 0; i < kBlock; ++i) any |= !(block[i] >= best) ? 1u : 0u;
  }
  if (last) {
    for (int64_t i = 0; i < kBlock; ++i) any |= block[i] == best ? 1u : 0u;
  }
  return any != 0;
}

template <typename T>
static void Positions(const ArgReduceArgs& args, void* const* io, int64_t begin, int64_t end) {
  const T* x = static_cast<const T*>(io[0]);
  int64_t* y = static_cast<int64_t*>(io[1]);
  for (int64_t item = begin; item < end; ++item) {
    const T* from = x + item / args.inner * args.size * args.inner + item % args.inner;
    T best = from[0];
    int64_t at = 0;
    for (int64_t k = 1; k < args.size;) {
      const int64_t stop = k + kBlock < args.size ? k + kBlock : args.size;
      if (args.inner == 1 && stop - k == kBlock &&
          !AnyBeyond(from + k, best, args.largest, args.last)) {
        k = stop;
        continue;
      }
      for (; k < stop; ++k) {
        const T v = from[k * args.inner];
        const bool is_nan = v != v;
        const bool best_is_nan = best != best;
        const bool beyond = args.largest ? v > best : v < best;
        const bool equal = v == best || (is_nan && best_is_nan);
        if (beyond || (is_nan && !best_is_nan) || (equal && args.last)) {
          best = v;
          at = k;
        }
      }
    }
    y[item] = at;
  }
}

void arg_reduce_any_scalar(const void* args_block, void* const* io, int64_t begin, int64_t end,
                           void*) {
  const ArgReduceArgs& args = *static_cast<const ArgReduceArgs*>(args_block);
  SRT_DISPATCH_NUMBER(args.dtype, T, return Positions<T>(args, io, begin, end))
}

int64_t ArgReduceItems(const ArgReduceArgs& args) { return args.outer * args.inner; }

bool SelectArgReduce(const ArgReduceArgs& args, Isa isa, Kernel* kernel) {
  return IsNumber(args.dtype) && SelectKernel(kKernels, isa, kernel);
}

}  // namespace sparsert
