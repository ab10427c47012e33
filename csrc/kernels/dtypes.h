// Runs statements for the C++ type of a DType.
#pragma once

#include <cstdint>

#include "base/tensor_desc.h"

namespace sparsert {

// u8 to i64.
inline bool IsInteger(DType dtype) {
  return DTypeSize(dtype) != 0 && dtype != DType::kBool && !IsFloatDType(dtype);
}
// Every type but f16 and bool.
inline bool IsNumber(DType dtype) {
  return IsInteger(dtype) || dtype == DType::kF32 || dtype == DType::kF64;
}

#define SRT_DTYPE_CASE_(number, Type, T, ...) \
  case DType::number: {                       \
    using T = Type;                           \
    __VA_ARGS__;                              \
  } break;

// For every number but f16; nothing happens for other types.
//   SRT_DISPATCH_NUMBER(args.dtype, T, return Rows<T>(args, io, begin, end))
#define SRT_DISPATCH_NUMBER(value, T, ...)        \
  switch (value) {                                \
    SRT_DTYPE_CASE_(kF32, float, T, __VA_ARGS__)  \
    SRT_DTYPE_CASE_(kF64, double, T, __VA_ARGS__) \
    SRT_DISPATCH_INTEGER_CASES_(T, __VA_ARGS__)   \
    default:                                      \
      break;                                      \
  }

// For the integer types.
#define SRT_DISPATCH_INTEGER(value, T, ...)     \
  switch (value) {                              \
    SRT_DISPATCH_INTEGER_CASES_(T, __VA_ARGS__) \
    default:                                    \
      break;                                    \
  }

#define SRT_DISPATCH_INTEGER_CASES_(T, ...)       \
  SRT_DTYPE_CASE_(kU8, uint8_t, T, __VA_ARGS__)   \
  SRT_DTYPE_CASE_(kI8, int8_t, T, __VA_ARGS__)    \
  SRT_DTYPE_CASE_(kU16, uint16_t, T, __VA_ARGS__) \
  SRT_DTYPE_CASE_(kI16, int16_t, T, __VA_ARGS__)  \
  SRT_DTYPE_CASE_(kU32, uint32_t, T, __VA_ARGS__) \
  SRT_DTYPE_CASE_(kI32, int32_t, T, __VA_ARGS__)  \
  SRT_DTYPE_CASE_(kU64, uint64_t, T, __VA_ARGS__) \
  SRT_DTYPE_CASE_(kI64, int64_t, T, __VA_ARGS__)

// For an unsigned type of `bytes` (1, 2, 4 or 8): to move elements.
#define SRT_DISPATCH_BYTES(bytes, T, ...) \
  switch (bytes) {                        \
    case 1: {                             \
      using T = uint8_t;                  \
      __VA_ARGS__;                        \
    } break;                              \
    case 2: {                             \
      using T = uint16_t;                 \
      __VA_ARGS__;                        \
    } break;                              \
    case 4: {                             \
      using T = uint32_t;                 \
      __VA_ARGS__;                        \
    } break;                              \
    default: {                            \
      using T = uint64_t;                 \
      __VA_ARGS__;                        \
    } break;                              \
  }

}  // namespace sparsert
