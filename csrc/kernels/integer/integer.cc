// Integer: arguments, selection and the kernel itself, one loop per type and function.
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

template <BinaryFn Fn, typename T>
void Rows(const IntegerArgs& args, void* const* io, int64_t begin, int64_t end) {
  const int64_t y_step = args.loop.row_strides[0];
  const int64_t a_step = args.loop.row_strides[1];
  const int64_t b_step = args.loop.row_strides[2];
  ForEachRow(args.loop, begin, end, [&](const int64_t* offsets, int64_t n) {
    T* y = static_cast<T*>(io[2]) + offsets[0];
    const T* a = static_cast<const T*>(io[0]) + offsets[1];
    const T* b = static_cast<const T*>(io[1]) + offsets[2];
    for (int64_t i = 0; i < n; ++i) y[i * y_step] = Combine<Fn, T>(a[i * a_step], b[i * b_step]);
  });
}

template <typename T>
void RowsOf(const IntegerArgs& args, void* const* io, int64_t begin, int64_t end) {
  switch (args.fn) {
    case BinaryFn::kAdd:
      return Rows<BinaryFn::kAdd, T>(args, io, begin, end);
    case BinaryFn::kSub:
      return Rows<BinaryFn::kSub, T>(args, io, begin, end);
    case BinaryFn::kMul:
      return Rows<BinaryFn::kMul, T>(args, io, begin, end);
    case BinaryFn::kDiv:
      return Rows<BinaryFn::kDiv, T>(args, io, begin, end);
    case BinaryFn::kPow:
      return Rows<BinaryFn::kPow, T>(args, io, begin, end);
    case BinaryFn::kMin:
      return Rows<BinaryFn::kMin, T>(args, io, begin, end);
    case BinaryFn::kMax:
      return Rows<BinaryFn::kMax, T>(args, io, begin, end);
    case BinaryFn::kMod:
      return Rows<BinaryFn::kMod, T>(args, io, begin, end);
    case BinaryFn::kFmod:
      return Rows<BinaryFn::kFmod, T>(args, io, begin, end);
    case BinaryFn::kShiftLeft:
      return Rows<BinaryFn::kShiftLeft, T>(args, io, begin, end);
    case BinaryFn::kShiftRight:
      return Rows<BinaryFn::kShiftRight, T>(args, io, begin, end);
    case BinaryFn::kBitwiseAnd:
      return Rows<BinaryFn::kBitwiseAnd, T>(args, io, begin, end);
    case BinaryFn::kBitwiseOr:
      return Rows<BinaryFn::kBitwiseOr, T>(args, io, begin, end);
    case BinaryFn::kBitwiseXor:
      return Rows<BinaryFn::kBitwiseXor, T>(args, io, begin, end);
    case BinaryFn::kCount:
      return;
  }
}

}  // namespace

void integer_any_scalar(const void* args_block, void* const* io, int64_t begin, int64_t end,
                        void*) {
  const IntegerArgs& args = *static_cast<const IntegerArgs*>(args_block);
  SRT_DISPATCH_INTEGER(args.dtype, T, return RowsOf<T>(args, io, begin, end))
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
