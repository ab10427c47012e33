// DType and TensorDesc: what a kernel knows of a tensor besides its address.
#pragma once

#include <cstddef>
#include <cstdint>

namespace sparsert {

// The numbers of onnx.TensorProto.DataType.
enum class DType : uint8_t {
  kUndefined = 0,
  kF32 = 1,
  kU8 = 2,
  kI8 = 3,
  kU16 = 4,
  kI16 = 5,
  kI32 = 6,
  kI64 = 7,
  kBool = 9,
  kF16 = 10,
  kF64 = 11,
  kU32 = 12,
  kU64 = 13,
};

// Bytes of one element, 0 for a type that the core does not know.
inline size_t DTypeSize(DType dtype) {
  switch (dtype) {
    case DType::kU8:
    case DType::kI8:
    case DType::kBool:
      return 1;
    case DType::kU16:
    case DType::kI16:
    case DType::kF16:
      return 2;
    case DType::kF32:
    case DType::kI32:
    case DType::kU32:
      return 4;
    case DType::kF64:
    case DType::kI64:
    case DType::kU64:
      return 8;
    default:
      return 0;
  }
}

inline bool IsFloatDType(DType dtype) {
  return dtype == DType::kF32 || dtype == DType::kF16 || dtype == DType::kF64;
}

constexpr int kMaxRank = 8;

struct Shape {
  int rank = 0;
  int64_t dims[kMaxRank] = {};

  int64_t elements() const {
    int64_t n = 1;
    for (int i = 0; i < rank; ++i) n *= dims[i];
    return n;
  }
};

// Shape and element strides. Dims 2.. are one contiguous row-major block, the plane (one element
// when rank <= 2). Planes lie strides[1] apart, images strides[0]: activations of rank >= 3 may be
// stored as padded planes, and a tensor may be every n-th channel of a part of a larger one.
struct TensorDesc {
  DType dtype = DType::kF32;
  Shape shape;
  int64_t strides[kMaxRank] = {};

  // Elements of one plane (dims 2..), 1 when rank <= 2.
  int64_t plane() const {
    int64_t n = 1;
    for (int i = 2; i < shape.rank; ++i) n *= shape.dims[i];
    return n;
  }
  // Row-major without padding: the tensor is one contiguous block.
  bool is_plain() const {
    int64_t expected = 1;
    for (int i = shape.rank - 1; i >= 0; --i) {
      if (shape.dims[i] != 1 && strides[i] != expected) return false;
      expected *= shape.dims[i];
    }
    return true;
  }
};

inline TensorDesc PlainDesc(DType dtype, const Shape& shape) {
  TensorDesc desc;
  desc.dtype = dtype;
  desc.shape = shape;
  int64_t stride = 1;
  for (int i = shape.rank - 1; i >= 0; --i) {
    desc.strides[i] = stride;
    stride *= shape.dims[i];
  }
  return desc;
}

}  // namespace sparsert
