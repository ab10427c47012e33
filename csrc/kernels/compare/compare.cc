// Compare: arguments, selection and the kernel itself.
#include "kernels/compare/compare.h"

#include "kernels/dtypes.h"
#include "kernels/select.h"

namespace sparsert {

#define SRT_KERNEL SRT_DECLARE_KERNEL
#include "kernels/compare/kernels.inc"

static const Kernel kKernels[] = {
#define SRT_KERNEL SRT_KERNEL_ROW
#include "kernels/compare/kernels.inc"
};

template <typename T, typename Fn>
static void CompareRows(const CompareArgs& args, void* const* io, int64_t begin, int64_t end,
                        Fn fn) {
  const int64_t* steps = args.loop.row_strides;
  ForEachRow(args.loop, begin, end, [&](const int64_t* offsets, int64_t n) {
    const T* a = static_cast<const T*>(io[0]) + offsets[1];
    const T* b = static_cast<const T*>(io[1]) + offsets[2];
    uint8_t* y = static_cast<uint8_t*>(io[2]) + offsets[0];
    for (int64_t i = 0; i < n; ++i) y[i * steps[0]] = fn(a[i * steps[1]], b[i * steps[2]]);
  });
}

template <typename T>
static void CompareAs(const CompareArgs& args, void* const* io, int64_t begin, int64_t end) {
  switch (args.fn) {
    case CompareFn::kEqual:
      return CompareRows<T>(args, io, begin, end, [](T a, T b) { return a == b; });
    case CompareFn::kLess:
      return CompareRows<T>(args, io, begin, end, [](T a, T b) { return a < b; });
    case CompareFn::kLessOrEqual:
      return CompareRows<T>(args, io, begin, end, [](T a, T b) { return a <= b; });
    case CompareFn::kGreater:
      return CompareRows<T>(args, io, begin, end, [](T a, T b) { return a > b; });
    default:
      return CompareRows<T>(args, io, begin, end, [](T a, T b) { return a >= b; });
  }
}

static void CompareBools(const CompareArgs& args, void* const* io, int64_t begin, int64_t end) {
  using T = uint8_t;
  switch (args.fn) {
    case CompareFn::kAnd:
      return CompareRows<T>(args, io, begin, end, [](T a, T b) { return a != 0 && b != 0; });
    case CompareFn::kOr:
      return CompareRows<T>(args, io, begin, end, [](T a, T b) { return a != 0 || b != 0; });
    case CompareFn::kXor:
      return CompareRows<T>(args, io, begin, end, [](T a, T b) { return (a != 0) != (b != 0); });
    case CompareFn::kNot: {
      void* const same[] = {io[0], io[0], io[2]};
      return CompareRows<T>(args, same, begin, end, [](T a, T) { return a == 0; });
    }
    default:
      return CompareAs<T>(args, io, begin, end);
  }
}

void compare_any_scalar(const void* args_block, void* const* io, int64_t begin, int64_t end,
                        void*) {
  const CompareArgs& args = *static_cast<const CompareArgs*>(args_block);
  SRT_DISPATCH_NUMBER(args.dtype, T, return CompareAs<T>(args, io, begin, end))
  CompareBools(args, io, begin, end);
}

CompareArgs MakeCompareArgs(CompareFn fn, const TensorDesc& a, const TensorDesc& b,
                            const TensorDesc& y) {
  CompareArgs args;
  args.fn = fn;
  args.dtype = a.dtype;
  args.loop = MakeBroadcastLoop(a, b, y, false);
  return args;
}

int64_t CompareItems(const CompareArgs& args) { return LoopItems(args.loop); }

bool SelectCompare(const CompareArgs& args, Isa isa, Kernel* kernel) {
  if (args.dtype == DType::kF16 || DTypeSize(args.dtype) == 0) return false;
  return SelectKernel(kKernels, isa, kernel);
}

}  // namespace sparsert
