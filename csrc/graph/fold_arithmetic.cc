// Scalar arithmetic of shape values: wraps like the runtime types, never traps.
#include "graph/fold_arithmetic.h"

#include <cmath>

namespace sparsert {
namespace {

int64_t WrapMul(int64_t a, int64_t b) {
  return static_cast<int64_t>(static_cast<uint64_t>(a) * static_cast<uint64_t>(b));
}
int64_t WrapNeg(int64_t a) { return static_cast<int64_t>(uint64_t{0} - static_cast<uint64_t>(a)); }

template <typename T>
bool CompareValues(CompareFn fn, T a, T b) {
  switch (fn) {
    case CompareFn::kEqual:
      return a == b;
    case CompareFn::kLess:
      return a < b;
    case CompareFn::kLessOrEqual:
      return a <= b;
    case CompareFn::kGreater:
      return a > b;
    default:
      return a >= b;
  }
}

}  // namespace

int64_t WrapInteger(int64_t value, DType dtype) {
  switch (dtype) {
    case DType::kU8:
      return static_cast<uint8_t>(value);
    case DType::kI8:
      return static_cast<int8_t>(value);
    case DType::kU16:
      return static_cast<uint16_t>(value);
    case DType::kI16:
      return static_cast<int16_t>(value);
    case DType::kI32:
      return static_cast<int32_t>(value);
    case DType::kU32:
      return static_cast<uint32_t>(value);
    case DType::kBool:
      return value != 0;
    default:
      return value;
  }
}

bool FoldBinaryInt(BinaryFn fn, DType dtype, int64_t a, int64_t b, int64_t* out) {
  if (dtype == DType::kBool || dtype == DType::kU64) return false;
  int64_t result = 0;
  switch (fn) {
    case BinaryFn::kAdd:
      result = static_cast<int64_t>(static_cast<uint64_t>(a) + static_cast<uint64_t>(b));
      break;
    case BinaryFn::kSub:
      result = static_cast<int64_t>(static_cast<uint64_t>(a) - static_cast<uint64_t>(b));
      break;
    case BinaryFn::kMul:
      result = WrapMul(a, b);
      break;
    case BinaryFn::kDiv:
      if (b == 0) return false;
      result = b == -1 ? WrapNeg(a) : a / b;
      break;
    case BinaryFn::kPow:
      if (b < 0) return false;
      result = 1;
      for (int64_t base = a, e = b; e != 0; e >>= 1, base = WrapMul(base, base)) {
        if ((e & 1) != 0) result = WrapMul(result, base);
      }
      break;
    case BinaryFn::kMin:
      result = a < b ? a : b;
      break;
    case BinaryFn::kMax:
      result = a > b ? a : b;
      break;
    case BinaryFn::kMod:
    case BinaryFn::kFmod:
      if (b == 0) return false;
      result = b == -1 ? 0 : a % b;
      if (fn == BinaryFn::kMod && result != 0 && (result < 0) != (b < 0)) result += b;
      break;
    case BinaryFn::kBitwiseAnd:
      result = a & b;
      break;
    case BinaryFn::kBitwiseOr:
      result = a | b;
      break;
    case BinaryFn::kBitwiseXor:
      result = a ^ b;
      break;
    default:
      return false;
  }
  *out = WrapInteger(result, dtype);
  return true;
}

bool FoldBinaryFloat(BinaryFn fn, float a, float b, float* out) {
  switch (fn) {
    case BinaryFn::kAdd:
      *out = a + b;
      return true;
    case BinaryFn::kSub:
      *out = a - b;
      return true;
    case BinaryFn::kMul:
      *out = a * b;
      return true;
    case BinaryFn::kDiv:
      if (b == 0.0f) return false;
      *out = a / b;
      return true;
    case BinaryFn::kPow:
      *out = std::pow(a, b);
      return true;
    case BinaryFn::kMin:
      *out = a < b ? a : b;
      return true;
    case BinaryFn::kMax:
      *out = a > b ? a : b;
      return true;
    default:
      return false;
  }
}

bool FoldUnaryInt(UnaryFn fn, DType dtype, int64_t x, int64_t* out) {
  if (dtype == DType::kBool || dtype == DType::kU64) return false;
  switch (fn) {
    case UnaryFn::kNone:
      *out = x;
      return true;
    case UnaryFn::kAbs:
      *out = WrapInteger(x < 0 ? WrapNeg(x) : x, dtype);
      return true;
    case UnaryFn::kNeg:
      *out = WrapInteger(WrapNeg(x), dtype);
      return true;
    case UnaryFn::kSign:
      *out = (x > 0) - (x < 0);
      return true;
    case UnaryFn::kRelu:
      *out = x > 0 ? x : 0;
      return true;
    default:
      return false;
  }
}

bool FoldUnaryFloat(UnaryFn fn, float alpha, float beta, float x, float* out) {
  switch (fn) {
    case UnaryFn::kNone:
      *out = x;
      return true;
    case UnaryFn::kRelu:
      *out = x > 0.0f ? x : 0.0f;
      return true;
    case UnaryFn::kClip:
      *out = x < alpha ? alpha : x;
      *out = *out > beta ? beta : *out;
      return true;
    case UnaryFn::kExp:
      *out = std::exp(x);
      return true;
    case UnaryFn::kLog:
      *out = std::log(x);
      return true;
    case UnaryFn::kSqrt:
      *out = std::sqrt(x);
      return true;
    case UnaryFn::kAbs:
      *out = std::fabs(x);
      return true;
    case UnaryFn::kNeg:
      *out = -x;
      return true;
    case UnaryFn::kReciprocal:
      if (x == 0.0f) return false;
      *out = 1.0f / x;
      return true;
    case UnaryFn::kFloor:
      *out = std::floor(x);
      return true;
    case UnaryFn::kCeil:
      *out = std::ceil(x);
      return true;
    case UnaryFn::kRound:
      *out = std::nearbyint(x);
      return true;
    default:
      return false;
  }
}

int64_t FoldCompareValue(CompareFn fn, DType dtype, int64_t a, int64_t b) {
  switch (fn) {
    case CompareFn::kAnd:
      return a != 0 && b != 0;
    case CompareFn::kOr:
      return a != 0 || b != 0;
    case CompareFn::kXor:
      return (a != 0) != (b != 0);
    case CompareFn::kNot:
      return a == 0;
    default:
      break;
  }
  if (dtype == DType::kF32) return CompareValues(fn, SlotToFloat(a), SlotToFloat(b));
  if (dtype == DType::kU64) {
    return CompareValues(fn, static_cast<uint64_t>(a), static_cast<uint64_t>(b));
  }
  return CompareValues(fn, a, b);
}

bool FoldCast(DType from, DType to, int64_t slot, int64_t* out) {
  if (to == DType::kF32) {
    *out = from == DType::kF32 ? slot : FloatToSlot(static_cast<float>(slot));
    return true;
  }
  if (!IsIntegerDType(to)) return false;
  if (from != DType::kF32) {
    *out = WrapInteger(slot, to);
  } else {
    const float value = SlotToFloat(slot);
    if (!(value >= -9223372036854775808.0f && value < 9223372036854775808.0f)) return false;
    *out = to == DType::kBool ? value != 0.0f : WrapInteger(static_cast<int64_t>(value), to);
  }
  return to != DType::kU64 || *out >= 0;
}

}  // namespace sparsert
