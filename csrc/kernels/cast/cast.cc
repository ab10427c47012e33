// Cast: arguments, selection and the kernel itself, one row function per pair of types but for
// pairs of narrow ones, which take two.
#include "kernels/cast/cast.h"

#include <limits>
#include <type_traits>

#include "base/half.h"
#include "kernels/select.h"

namespace sparsert {

#define SRT_KERNEL SRT_DECLARE_KERNEL
#include "kernels/cast/kernels.inc"

static const Kernel kKernels[] = {
#define SRT_KERNEL SRT_KERNEL_ROW
#include "kernels/cast/kernels.inc"
};

namespace {

struct Half {
  uint16_t bits;
};
struct Bool {
  uint8_t value;
};

float Number(Half x) { return HalfToFloat(x.bits); }
uint8_t Number(Bool x) { return x.value != 0 ? 1 : 0; }
template <typename T>
T Number(T x) {
  return x;
}

// Truncates and saturates: a conversion out of range is undefined in C++.
template <typename To, typename From>
To FloatToInteger(From x) {
  // 2^digits is the first value above the range and exact in any float.
  const From limit = static_cast<From>(1ull << (std::numeric_limits<To>::digits - 1)) * 2;
  if (x != x) return 0;
  if (x >= limit) return std::numeric_limits<To>::max();
  if (std::is_signed<To>::value ? x < -limit : x <= -1) return std::numeric_limits<To>::min();
  return static_cast<To>(x);
}

template <typename To, typename From>
To Convert(From x) {
  const auto number = Number(x);
  using N = std::remove_const_t<decltype(number)>;
  if constexpr (std::is_same<To, Bool>::value) {
    return {static_cast<uint8_t>(number != 0 ? 1 : 0)};
  } else if constexpr (std::is_same<To, Half>::value) {
    return {FloatToHalf(static_cast<float>(number))};
  } else if constexpr (std::is_floating_point<N>::value && std::is_integral<To>::value) {
    return FloatToInteger<To>(number);
  } else {
    return static_cast<To>(number);
  }
}

using CastRowFn = void (*)(const void* x, int64_t x_offset, int64_t x_step, void* y,
                           int64_t y_offset, int64_t y_step, int64_t n);

template <typename From, typename To>
void CastRow(const void* x, int64_t x_offset, int64_t x_step, void* y, int64_t y_offset,
             int64_t y_step, int64_t n) {
  const From* from = static_cast<const From*>(x) + x_offset;
  To* to = static_cast<To*>(y) + y_offset;
  if (x_step == 1 && y_step == 1) {
    for (int64_t i = 0; i < n; ++i) to[i] = Convert<To>(from[i]);
  } else {
    for (int64_t i = 0; i < n; ++i) to[i * y_step] = Convert<To>(from[i * x_step]);
  }
}

template <typename From>
CastRowFn RowTo(DType to) {
  switch (to) {
    case DType::kF32:
      return CastRow<From, float>;
    case DType::kU8:
      return CastRow<From, uint8_t>;
    case DType::kI8:
      return CastRow<From, int8_t>;
    case DType::kU16:
      return CastRow<From, uint16_t>;
    case DType::kI16:
      return CastRow<From, int16_t>;
    case DType::kI32:
      return CastRow<From, int32_t>;
    case DType::kI64:
      return CastRow<From, int64_t>;
    case DType::kBool:
      return CastRow<From, Bool>;
    case DType::kF16:
      return CastRow<From, Half>;
    case DType::kF64:
      return CastRow<From, double>;
    case DType::kU32:
      return CastRow<From, uint32_t>;
    case DType::kU64:
      return CastRow<From, uint64_t>;
    default:
      return nullptr;
  }
}

// The type through which numbers of a narrow one go to others but f32; it has all of them.
DType WideOf(DType from) { return from == DType::kF16 ? DType::kF64 : DType::kI64; }

template <typename From>
CastRowFn NarrowRowTo(DType to) {
  constexpr bool kHalf = std::is_same<From, Half>::value;
  if (to == DType::kF32) return CastRow<From, float>;
  if (to != (kHalf ? DType::kF64 : DType::kI64)) return nullptr;
  return CastRow<From, std::conditional_t<kHalf, double, int64_t>>;
}

// nullptr: in two steps, by way of WideOf(from).
CastRowFn RowOf(DType from, DType to) {
  switch (from) {
    case DType::kF32:
      return RowTo<float>(to);
    case DType::kU8:
      return NarrowRowTo<uint8_t>(to);
    case DType::kI8:
      return NarrowRowTo<int8_t>(to);
    case DType::kU16:
      return NarrowRowTo<uint16_t>(to);
    case DType::kI16:
      return NarrowRowTo<int16_t>(to);
    case DType::kI32:
      return NarrowRowTo<int32_t>(to);
    case DType::kI64:
      return RowTo<int64_t>(to);
    case DType::kBool:
      return NarrowRowTo<Bool>(to);
    case DType::kF16:
      return NarrowRowTo<Half>(to);
    case DType::kF64:
      return RowTo<double>(to);
    case DType::kU32:
      return NarrowRowTo<uint32_t>(to);
    case DType::kU64:
      return RowTo<uint64_t>(to);
    default:
      return nullptr;
  }
}

}  // namespace

void cast_any_scalar(const void* args_block, void* const* io, int64_t begin, int64_t end, void*) {
  const CastArgs& args = *static_cast<const CastArgs*>(args_block);
  const int64_t x_step = args.loop.row_strides[1];
  const int64_t y_step = args.loop.row_strides[0];
  if (const CastRowFn row = RowOf(args.from, args.to)) {
    ForEachRow(args.loop, begin, end, [&](const int64_t* offsets, int64_t n) {
      row(io[0], offsets[1], x_step, io[1], offsets[0], y_step, n);
    });
    return;
  }
  const CastRowFn widen = RowOf(args.from, WideOf(args.from));
  const CastRowFn narrow = RowOf(WideOf(args.from), args.to);
  ForEachRow(args.loop, begin, end, [&](const int64_t* offsets, int64_t n) {
    constexpr int64_t kPart = 128;
    uint64_t wide[kPart];
    for (int64_t i = 0; i < n; i += kPart) {
      const int64_t count = n - i < kPart ? n - i : kPart;
      widen(io[0], offsets[1] + i * x_step, x_step, wide, 0, 1, count);
      narrow(wide, 0, 1, io[1], offsets[0] + i * y_step, y_step, count);
    }
  });
}

CastArgs MakeCastArgs(const TensorDesc& x, const TensorDesc& y) {
  CastArgs args;
  args.from = x.dtype;
  args.to = y.dtype;
  args.loop = MakeLoop<2>(y.shape, {y.strides, x.strides}, false);
  return args;
}

int64_t CastItems(const CastArgs& args) { return LoopItems(args.loop); }

bool SelectCast(const CastArgs& args, Isa isa, Kernel* kernel) {
  return DTypeSize(args.from) != 0 && DTypeSize(args.to) != 0 &&
         SelectKernel(kKernels, isa, kernel);
}

}  // namespace sparsert
