// Integer: arguments, selection and the kernel itself, one row function per type and function.
#include "kernels/integer/integer.h"

#include <type_traits>

#include "kernels/dtypes.h"
#include "kernels/select.h"

namespace sparsert {

#define SRT_KERNEL SRT_DECLARE_KERNEL
#include "kernels/integer/kernels.inc"

static const Kernel kKernels[] = {
#define SRT_KERNEL SRT_KERNEL_ROW
#include "kernels/integer/kernels.inc"
};

namespace {

// Arithmetic modulo 2^bits; unsigned and at least 32 bits wide, so that nothing overflows.
template <typename T>
using Wide = std::conditional_t<sizeof(T) == 8, uint64_t, uint32_t>;

template <typename T>
T Power(T base, T exponent) {
  if (std::is_signed<T>::value && exponent < 0) {
    if (base == 1) return 1;
    if (base == static_cast<T>(-1)) return exponent % 2 == 0 ? T{1} : base;
    return 0;
  }
  Wide<T> result = 1;
  Wide<T> square = static_cast<Wide<T>>(base);
  for (auto e = static_cast<std::make_unsigned_t<T>>(exponent); e != 0; e /= 2) {
    if (e % 2 != 0) result *= square;
    square *= square;
  }
  return static_cast<T>(result);
}

// The remainder has the sign of a.
template <typename T>
T Remainder(T a, T b) {
  if (b == 0 || (std::is_signed<T>::value && b == static_cast<T>(-1))) return 0;
  return static_cast<T>(a % b);
}

template <typename T>
T Quotient(T a, T b) {
  if (b == 0) return 0;
  if (std::is_signed<T>::value && b == static_cast<T>(-1)) {
    return static_cast<T>(Wide<T>{0} - static_cast<Wide<T>>(a));
  }
  return static_cast<T>(a / b);
}

template <BinaryFn Fn, typename T>
T Combine(T a, T b) {
  using U = std::make_unsigned_t<T>;
  using W = Wide<T>;
  constexpr auto kBits = static_cast<U>(8 * sizeof(T));
  if constexpr (Fn == BinaryFn::kAdd) {
    return static_cast<T>(static_cast<W>(a) + static_cast<W>(b));
  } else if constexpr (Fn == BinaryFn::kSub) {
    return static_cast<T>(static_cast<W>(a) - static_cast<W>(b));
  } else if constexpr (Fn == BinaryFn::kMul) {
    return static_cast<T>(static_cast<W>(a) * static_cast<W>(b));
  } else if constexpr (Fn == BinaryFn::kDiv) {
    return Quotient(a, b);
  } else if constexpr (Fn == BinaryFn::kPow) {
    return Power(a, b);
  } else if constexpr (Fn == BinaryFn::kMin) {
    return a < b ? a : b;
  } else if constexpr (Fn == BinaryFn::kMax) {
    return a > b ? a : b;
  } else if constexpr (Fn == BinaryFn::kMod) {
    const T r = Remainder(a, b);
    return r != 0 && (r < 0) != (b < 0) ? static_cast<T>(r + b) : r;
  } else if constexpr (Fn == BinaryFn::kFmod) {
    return Remainder(a, b);
  } else if constexpr (Fn == BinaryFn::kShiftLeft) {
    const U by = static_cast<U>(b);
    return by >= kBits ? T{0} : static_cast<T>(static_cast<W>(static_cast<U>(a)) << by);
  } else if constexpr (Fn == BinaryFn::kShiftRight) {
    const U by = static_cast<U>(b);
    const T all = a < 0 ? static_cast<T>(-1) : T{0};  // all bits gone: the sign is left
    return by >= kBits ? all : static_cast<T>(a >> by);
  } else if constexpr (Fn == BinaryFn::kBitwiseAnd) {
    return static_cast<T>(a & b);
  } else if constexpr (Fn == BinaryFn::kBitwiseOr) {
    return static_cast<T>(a | b);
  } else {
    static_assert(Fn == BinaryFn::kBitwiseXor, "a function without a formula");
    return static_cast<T>(a ^ b);
  }
}

using RowFn = void (*)(const void* a, int64_t a_step, const void* b, int64_t b_step, void* y,
                       int64_t y_step, int64_t n);

template <BinaryFn Fn, typename T>
void Row(const void* a, int64_t a_step, const void* b, int64_t b_step, void* y, int64_t y_step,
         int64_t n) {
  const T* at = static_cast<const T*>(a);
  const T* bt = static_cast<const T*>(b);
  T* yt = static_cast<T*>(y);
  for (int64_t i = 0; i < n; ++i) yt[i * y_step] = Combine<Fn, T>(at[i * a_step], bt[i * b_step]);
}

// Functions whose bits are the same for signed numbers as for unsigned ones.
template <typename T>
RowFn UnsignedRow(BinaryFn fn) {
  switch (fn) {
    case BinaryFn::kAdd:
      return Row<BinaryFn::kAdd, T>;
    case BinaryFn::kSub:
      return Row<BinaryFn::kSub, T>;
    case BinaryFn::kMul:
      return Row<BinaryFn::kMul, T>;
    case BinaryFn::kShiftLeft:
      return Row<BinaryFn::kShiftLeft, T>;
    case BinaryFn::kBitwiseAnd:
      return Row<BinaryFn::kBitwiseAnd, T>;
    case BinaryFn::kBitwiseOr:
      return Row<BinaryFn::kBitwiseOr, T>;
    case BinaryFn::kBitwiseXor:
      return Row<BinaryFn::kBitwiseXor, T>;
    default:
      return nullptr;
  }
}

template <typename T>
RowFn RowOf(BinaryFn fn) {
  switch (fn) {
    case BinaryFn::kDiv:
      return Row<BinaryFn::kDiv, T>;
    case BinaryFn::kPow:
      return Row<BinaryFn::kPow, T>;
    case BinaryFn::kMin:
      return Row<BinaryFn::kMin, T>;
    case BinaryFn::kMax:
      return Row<BinaryFn::kMax, T>;
    case BinaryFn::kMod:
      return Row<BinaryFn::kMod, T>;
    case BinaryFn::kFmod:
      return Row<BinaryFn::kFmod, T>;
    case BinaryFn::kShiftRight:
      return Row<BinaryFn::kShiftRight, T>;
    default:
      return UnsignedRow<std::make_unsigned_t<T>>(fn);
  }
}

RowFn FindRow(const IntegerArgs& args) {
  SRT_DISPATCH_INTEGER(args.dtype, T, return RowOf<T>(args.fn))
  return nullptr;
}

}  // namespace

void integer_any_scalar(const void* args_block, void* const* io, int64_t begin, int64_t end,
                        void*) {
  const IntegerArgs& args = *static_cast<const IntegerArgs*>(args_block);
  const RowFn row = FindRow(args);
  const auto bytes = static_cast<int64_t>(DTypeSize(args.dtype));
  const int64_t* steps = args.loop.row_strides;
  ForEachRow(args.loop, begin, end, [&](const int64_t* offsets, int64_t n) {
    row(static_cast<const char*>(io[0]) + offsets[1] * bytes, steps[1],
        static_cast<const char*>(io[1]) + offsets[2] * bytes, steps[2],
        static_cast<char*>(io[2]) + offsets[0] * bytes, steps[0], n);
  });
}

IntegerArgs MakeIntegerArgs(BinaryFn fn, const TensorDesc& a, const TensorDesc& b,
                            const TensorDesc& y) {
  IntegerArgs args;
  args.fn = fn;
  args.dtype = y.dtype;
  args.loop = MakeBroadcastLoop(a, b, y, false);
  return args;
}

int64_t IntegerItems(const IntegerArgs& args) { return LoopItems(args.loop); }

bool SelectInteger(const IntegerArgs& args, Isa isa, Kernel* kernel) {
  return IsInteger(args.dtype) && SelectKernel(kKernels, isa, kernel);
}

}  // namespace sparsert
