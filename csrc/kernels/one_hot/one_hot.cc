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

// Indices are read a part at a time, so that their types and those of y need no code for each pair.
constexpr int64_t kPart = 128;

template <typename Index>
static void Positions(const void* indices, int64_t first, int64_t n, int64_t depth, int64_t* at) {
  const Index* index = static_cast<const Index*>(indices) + first;
  for (int64_t i = 0; i < n; ++i) at[i] = Position(index[i], depth);
}

static void PositionsOf(const OneHotArgs& args, const void* indices, int64_t first, int64_t n,
                        int64_t* at) {
  SRT_DISPATCH_NUMBER(args.index_dtype, Index,
                      return Positions<Index>(indices, first, n, args.depth, at))
}

template <typename T>
static void Fill(const OneHotArgs& args, void* const* io, int64_t begin, int64_t end) {
  const T off = static_cast<const T*>(io[1])[0];
  const T on = static_cast<const T*>(io[1])[1];
  T* y = static_cast<T*>(io[2]);
  const int64_t slice = args.depth * args.inner;
  for (int64_t i = begin * slice; i < end * slice; ++i) y[i] = off;
  int64_t at[kPart];
  for (int64_t i = begin * args.inner; i < end * args.inner; i += kPart) {
    const int64_t left = end * args.inner - i;
    const int64_t n = left < kPart ? left : kPart;
    PositionsOf(args, io[0], i, n, at);
    for (int64_t k = 0; k < n; ++k) {
      const int64_t outer = (i + k) / args.inner;
      const int64_t inner = (i + k) % args.inner;
      if (at[k] >= 0) y[outer * slice + at[k] * args.inner + inner] = on;
    }
  }
}

void one_hot_any_scalar(const void* args_block, void* const* io, int64_t begin, int64_t end,
                        void*) {
  const OneHotArgs& args = *static_cast<const OneHotArgs*>(args_block);
  SRT_DISPATCH_BYTES(args.element_bytes, T, return Fill<T>(args, io, begin, end))
}

int64_t OneHotItems(const OneHotArgs& args) { return args.outer; }

bool SelectOneHot(const OneHotArgs& args, Isa isa, Kernel* kernel) {
  return IsNumber(args.index_dtype) && SelectKernel(kKernels, isa, kernel);
}

}  // namespace sparsert
