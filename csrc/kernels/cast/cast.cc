// Cast: arguments, selection and the kernel itself, one row function per pair of types.
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

CastRowFn RowOf(DType from, DType to) {
  switch (from) {
    case DType::kF32:
      return RowTo<float>(to);
    case DType::kU8:
      return RowTo<uint8_t>(to);
    case DType::kI8:
      return RowTo<int8_t>(to);
    case DType::kU16:
      return RowTo<uint16_t>(to);
    case DType::kI16:
      return RowTo<int16_t>(to);
    case DType::kI32:
      return RowTo<int32_t>(to);
    case DType::kI64:
      return RowTo<int64_t>(to);
    case DType::kBool:
      return RowTo<Bool>(to);
    case DType::kF16:
      return RowTo<Half>(to);
    case DType::kF64:
      return RowTo<double>(to);
    case DType::kU32:
      return RowTo<uint32_t>(to);
    case DType::kU64:
      return RowTo<uint64_t>(to);
    default:
      return nullptr;
  }
}

}  // namespace

void cast_any_scalar(const void* args_block, void* const* io, int64_t begin, int64_t end, void*) {
  const CastArgs& args = *static_cast<const CastArgs*>(args_block);
  const CastRowFn row = RowOf(args.from, args.to);
  ForEachRow(args.loop, begin, end, [&](const int64_t* offsets, int64_t n) {
    row(io[0], offsets[1], args.loop.row_strides[1], io[1], offsets[0], args.loop.row_strides[0],
        n);
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
  return RowOf(args.from, args.to) != nullptr && SelectKernel(kKernels, isa, kernel);
}

}  // namespace sparsert
