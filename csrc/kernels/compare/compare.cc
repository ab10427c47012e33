// Compare: arguments, selection and the kernel itself, one row function per type and function.
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

namespace {

// How an operand lies in a row.
struct Elements {
  const void* first;
  int64_t step;
};

using RowFn = void (*)(Elements a, Elements b, uint8_t* y, int64_t y_step, int64_t n);

template <CompareFn Fn, typename T>
bool Test(T a, T b) {
  if constexpr (Fn == CompareFn::kEqual) {
    return a == b;
  } else if constexpr (Fn == CompareFn::kLess) {
    return a < b;
  } else if constexpr (Fn == CompareFn::kLessOrEqual) {
    return a <= b;
  } else if constexpr (Fn == CompareFn::kAnd) {
    return a != 0 && b != 0;
  } else if constexpr (Fn == CompareFn::kOr) {
    return a != 0 || b != 0;
  } else if constexpr (Fn == CompareFn::kXor) {
    return (a != 0) != (b != 0);
  } else {
    static_assert(Fn == CompareFn::kNot, "a function without a formula");
    return a == 0;
  }
}

template <CompareFn Fn, typename T>
void Row(Elements a, Elements b, uint8_t* y, int64_t y_step, int64_t n) {
  const T* at = static_cast<const T*>(a.first);
  const T* bt = static_cast<const T*>(b.first);
  for (int64_t i = 0; i < n; ++i) y[i * y_step] = Test<Fn, T>(at[i * a.step], bt[i * b.step]);
}

template <typename T>
RowFn NumberRow(CompareFn fn) {
  switch (fn) {
    case CompareFn::kEqual:
      return Row<CompareFn::kEqual, T>;
    case CompareFn::kLess:
      return Row<CompareFn::kLess, T>;
    default:
      return Row<CompareFn::kLessOrEqual, T>;
  }
}

RowFn BoolRow(CompareFn fn) {
  switch (fn) {
    case CompareFn::kAnd:
      return Row<CompareFn::kAnd, uint8_t>;
    case CompareFn::kOr:
      return Row<CompareFn::kOr, uint8_t>;
    case CompareFn::kXor:
      return Row<CompareFn::kXor, uint8_t>;
    case CompareFn::kNot:
      return Row<CompareFn::kNot, uint8_t>;
    default:
      return NumberRow<uint8_t>(fn);
  }
}

RowFn FindRow(CompareFn fn, DType dtype) {
  SRT_DISPATCH_NUMBER(dtype, T, return NumberRow<T>(fn))
  return BoolRow(fn);
}

}  // namespace

void compare_any_scalar(const void* args_block, void* const* io, int64_t begin, int64_t end,
                        void*) {
  const CompareArgs& args = *static_cast<const CompareArgs*>(args_block);
  // a > b is b < a.
  CompareFn fn = args.fn;
  const bool swapped = fn == CompareFn::kGreater || fn == CompareFn::kGreaterOrEqual;
  if (fn == CompareFn::kGreater) fn = CompareFn::kLess;
  if (fn == CompareFn::kGreaterOrEqual) fn = CompareFn::kLessOrEqual;
  const RowFn row = FindRow(fn, args.dtype);
  const void* second = fn == CompareFn::kNot ? io[0] : io[1];  // Not has no b
  const auto bytes = static_cast<int64_t>(DTypeSize(args.dtype));
  const int64_t* steps = args.loop.row_strides;
  ForEachRow(args.loop, begin, end, [&](const int64_t* offsets, int64_t n) {
    const Elements a = {static_cast<const char*>(io[0]) + offsets[1] * bytes, steps[1]};
    const Elements b = {static_cast<const char*>(second) + offsets[2] * bytes, steps[2]};
    uint8_t* y = static_cast<uint8_t*>(io[2]) + offsets[0];
    row(swapped ? b : a, swapped ? a : b, y, steps[0], n);
  });
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
