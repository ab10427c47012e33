// Conversions between floats and packed bytes, and what is done to each packed byte alone.
//
// Packed bytes are [N, ceil(C / 4), ...]: an element holds the bytes of four successive channels,
// the first in the lowest byte; channels beyond C hold the zero point. Bytes are unsigned.
//
//   Quantize:   byte = clamp(round(x / scale) + zero, low, high), half to even; low of NaN
//   Dequantize: x = (byte - zero) * scale
//   Add:        byte = clamp(round((a - a_zero) * a_scale + (b - b_zero) * b_scale) + zero, low,
//               high)
//   Lookup:     byte = table[byte]
//   Range:      (least, greatest) of x and 0, of each part of its rows, without NaN
//   Dynamic:    Quantize with the scale and zero point that map this range onto 0 to 255
//   Elementwise: z = act((x - x_zero) * scale + bias + r), r floats or (r - b_zero) * b_scale;
//               floats z, or clamp(round(z * y_factor) + zero, low, high)
#pragma once

#include "base/functions.h"
#include "kernels/kernel.h"

namespace sparsert {

// io: Quantize: x, y; Dequantize: q, y; Add: a, b, y; Lookup: q, y; Elementwise: x, [r or nullptr],
// y; Range: x, ranges [parts][2]; Dynamic: x, ranges, y, params [2]: scale and zero point, written
// with the first item. A work item is one packed plane of one image; of Range, a part. Strides in
// elements. Add and Lookup may write their first operand.
struct QuantizeArgs {
  int64_t batch = 1;
  int64_t planes = 1;    // packed
  int64_t channels = 1;  // of the floats
  int64_t columns = 1;
  int64_t x_image = 0, x_plane = 0;  // of io[0]
  int64_t b_image = 0, b_plane = 0;  // of the second operand
  int64_t y_image = 0, y_plane = 0;
  float scale = 1.0f, b_scale = 1.0f;
  int32_t x_zero = 0, b_zero = 0;
  int32_t zero = 0, low = 0, high = 255;
  const uint8_t* table = nullptr;  // [256]
  // Of Elementwise.
  const float* bias = nullptr;  // [channels], or nullptr
  Activation act;
  bool is_coarse = false;  // act is Gelu or GeluTanh to within kCoarseGeluError
  float y_factor = 1.0f;
  bool r_is_float = false, y_is_float = false;
  // Of Range and Dynamic.
  int64_t parts = 0;
};

// The largest difference from the function where its result is rounded to far wider steps.
constexpr float kCoarseGeluError = 1.7e-5f;

enum class QuantizeOp : uint8_t {
  kQuantize,
  kDequantize,
  kAdd,
  kLookup,
  kElementwise,
  kRange,
  kDynamic
};

inline int64_t QuantizeItems(const QuantizeArgs& args) { return args.batch * args.planes; }

bool SelectQuantize(QuantizeOp op, Isa isa, Kernel* kernel);

}  // namespace sparsert
