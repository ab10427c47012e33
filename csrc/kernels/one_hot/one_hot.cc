// OneHot: selection and the kernel itself.
#include "kernels/one_hot/one_hot.h"

#include "kernels/dtypes.h"
#include "kernels/select.h"

namespace sparsert {

#define SRT_KERNEL SRT_DECLARE_KERNEL
#include "kernels/one_hot/kernels.inc"

static const Kernel kKernels[] = {
#define SRT_KERNEL SRT_KERNEL_ROW
#include "kernels/one_hot/kernels.inc"
};

// The index as a position, -1 when it is outside.
template <typename Index>
static int64_t Position(Index index, int64_t depth) {
  const double number = static_cast<double>(index);  // exact where it matters: depth is far below
  const double limit = static_cast<double>(depth);
  if (!(number >= -limit && number < limit)) return -1;
  const int64_t at = static_cast<int64_t>(number);
  return at < 0 ? at + depth : at;
}

template <typename T, typename Index>
static void Fill(const OneHotArgs& args, void* const* io, int64_t begin, int64_t end) {
  const T off = static_cast<const T*>(io[1])[0];
  const T on = static_cast<const T*>(io[1])[1];
  for (int64_t o = begin; o < end; ++o) {
    const Index* index = static_cast<const Index*>(io[0]) + o * args.inner;
    T* y = static_cast<T*>(io[2]) + o * args.depth * args.inner;
    for (int64_t k = 0; k < args.depth * args.inner; ++k) y[k] = off;
    for (int64_t i = 0; i < args.inner; ++i) {
      const int64_t at = Position(index[i], args.depth);
      if (at >= 0) y[at * args.inner + i] = on;
    }
  }
}

template <typename Index>
static void FillAny(const OneHotArgs& args, void* const* io, int64_t begin, int64_t end) {
  SRT_DISPATCH_BYTES(args.element_bytes, T, return Fill<T, Index>(args, io, begin, end))
}

void one_hot_any_scalar(const void* args_block, void* const* io, int64_t begin, int64_t end,
                        void*) {
  const OneHotArgs& args = *static_cast<const OneHotArgs*>(args_block);
  SRT_DISPATCH_NUMBER(args.index_dtype, Index, return FillAny<Index>(args, io, begin, end))
}

int64_t OneHotItems(const OneHotArgs& args) { return args.outer; }

bool SelectOneHot(const OneHotArgs& args, Isa isa, Kernel* kernel) {
  return IsNumber(args.index_dtype) && SelectKernel(kKernels, isa, kernel);
}

}  // namespace sparsert
