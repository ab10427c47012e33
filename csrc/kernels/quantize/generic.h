// What is done to packed bytes, over Vec and groups of four bytes.
// Included once per instruction set, after its vec_*.h and dot_*.h, with SRT_ISA defined.
#pragma once

#include <cmath>

#include "kernels/define.h"
#include "kernels/quantize/elementwise.h"

namespace sparsert {
namespace SRT_ISA {

struct Quantiser {
  Vec scale, inverse;
  float middle;   // 0: always divide
  Vec low, high;  // less the zero point: floats may be too large to be rounded
  ByteRange range;
};

// Bytes of four vectors. A quotient is the product with the inverse but for rounding, which only
// matters close to the middle between two bytes: there it is divided.
SRT_INLINE Vec Quantized(const Quantiser& q, const Vec (&x)[4]) {
  Vec z[4];
  Vec farthest = Zero();
  for (int i = 0; i < 4; ++i) {
    z[i] = Clamp(Mul(x[i], q.inverse), q.low, q.high);
    farthest = Max(farthest, Abs(Sub(z[i], Round(z[i]))));
  }
  if (!(ReduceMax(farthest) < q.middle)) {
    for (int i = 0; i < 4; ++i) z[i] = Clamp(Div(x[i], q.scale), q.low, q.high);
  }
  return RoundToBytes(z[0], z[1], z[2], z[3], q.range);
}

// Four channels of planes, of which `channels` exist.
SRT_INLINE void QuantizePlane(const Quantiser& q, const float* x, int64_t x_plane, int channels,
                              int64_t columns, float* y) {
  for (int64_t i = 0; i < columns; i += Vec::kLanes) {
    const Mask tail =
        FirstN(static_cast<int>(columns - i < Vec::kLanes ? columns - i : Vec::kLanes));
    Vec z[4];
    for (int r = 0; r < 4; ++r) {
      z[r] = r < channels ? LoadMask(x + r * x_plane + i, tail) : Zero();
    }
    StoreMask(y + i, tail, Quantized(q, z));
  }
}

// Channels side by side: one column.
SRT_INLINE void QuantizeChannels(const Quantiser& q, const float* x, int64_t channels, float* y) {
  constexpr int kLanes = Vec::kLanes;
  for (int64_t i = 0; i < channels; i += 4 * kLanes) {
    Vec v[4];
    for (int k = 0; k < 4; ++k) {
      const int64_t left = channels - i - k * kLanes;
      const Mask mask = FirstN(static_cast<int>(left < 0 ? 0 : left < kLanes ? left : kLanes));
      // Lanes that do not exist read 0, which becomes the zero point.
      v[k] = left <= 0 ? Zero() : LoadMask(x + i + k * kLanes, mask);
    }
    const Vec even[2] = {Evens(v[0], v[1]), Evens(v[2], v[3])};
    const Vec odd[2] = {Odds(v[0], v[1]), Odds(v[2], v[3])};
    const int64_t left = (channels - i + 3) / 4;
    const Vec z[4] = {Evens(even[0], even[1]), Evens(odd[0], odd[1]), Odds(even[0], even[1]),
                      Odds(odd[0], odd[1])};
    StoreMask(y + i / 4, FirstN(static_cast<int>(left < kLanes ? left : kLanes)), Quantized(q, z));
  }
}

SRT_INLINE Quantiser MakeQuantiser(float scale, int32_t zero, int32_t low, int32_t high) {
  // Inverses of other scales may not be normal.
  const bool has_inverse = scale > 1e-30f && scale < 1e30f;
  return {Set1(scale),
          Set1(1.0f / scale),
          has_inverse ? 0.4999f : 0.0f,
          Set1(static_cast<float>(low - zero)),
          Set1(static_cast<float>(high - zero)),
          MakeByteRange(zero, low, high)};
}

// How many items from this one on are one row of packed bytes: to the end of the image, or of the
// items, where planes of one column lie side by side; else one.
SRT_INLINE int64_t ItemsInRow(const QuantizeArgs& a, bool side_by_side, int64_t item, int64_t end) {
  const int64_t left = a.planes - item % a.planes;
  return !side_by_side ? 1 : end - item < left ? end - item : left;
}

static void QuantizeItemsOf(const QuantizeArgs& a, const Quantiser& q, const float* all_x,
                            float* all_y, int64_t begin, int64_t end) {
  const bool side_by_side = a.columns == 1 && a.x_plane == 1 && a.y_plane == 1;
  for (int64_t item = begin, count = 1; item < end; item += count) {
    count = ItemsInRow(a, side_by_side, item, end);
    const int64_t image = item / a.planes;
    const int64_t plane = item % a.planes;
    const int64_t channels = a.channels - 4 * plane;
    const float* x = all_x + image * a.x_image + 4 * plane * a.x_plane;
    float* y = all_y + image * a.y_image + plane * a.y_plane;
    if (side_by_side) {
      QuantizeChannels(q, x, channels < 4 * count ? channels : 4 * count, y);
    } else {
      QuantizePlane(q, x, a.x_plane, static_cast<int>(channels < 4 ? channels : 4), a.columns, y);
    }
  }
}

static void Quantize(const void* args_block, void* const* io, int64_t begin, int64_t end, void*) {
  const QuantizeArgs& a = *static_cast<const QuantizeArgs*>(args_block);
  QuantizeItemsOf(a, MakeQuantiser(a.scale, a.zero, a.low, a.high),
                  static_cast<const float*>(io[0]), static_cast<float*>(io[1]), begin, end);
}

// The rows of x are its planes, or where the channels of an image lie side by side, its images.
static void QRange(const void* args_block, void* const* io, int64_t begin, int64_t end, void*) {
  const QuantizeArgs& a = *static_cast<const QuantizeArgs*>(args_block);
  const bool side_by_side = a.columns == 1 && a.x_plane == 1;
  const int64_t planes = side_by_side ? 1 : a.channels;
  const int64_t length = side_by_side ? a.channels : a.columns;
  const int64_t rows = a.batch * planes;
  for (int64_t part = begin; part < end; ++part) {
    Vec low[2] = {Zero(), Zero()};
    Vec high[2] = {Zero(), Zero()};
    const int64_t row_end = rows * (part + 1) / a.parts;
    for (int64_t row = rows * part / a.parts; row < row_end; ++row) {
      const float* x =
          static_cast<const float*>(io[0]) + row / planes * a.x_image + row % planes * a.x_plane;
      int64_t i = 0;
      for (; i + 2 * Vec::kLanes <= length; i += 2 * Vec::kLanes) {
#pragma GCC unroll 2
        for (int v = 0; v < 2; ++v) {
          const Vec value = LoadU(x + i + v * Vec::kLanes);
          low[v] = Min(value, low[v]);  // in this order NaN is left out
          high[v] = Max(value, high[v]);
        }
      }
      for (; i < length; i += Vec::kLanes) {  // lanes that do not exist read 0
        const int64_t left = length - i;
        const Vec value =
            LoadMask(x + i, FirstN(static_cast<int>(left < Vec::kLanes ? left : Vec::kLanes)));
        low[0] = Min(value, low[0]);
        high[0] = Max(value, high[0]);
      }
    }
    float* range = static_cast<float*>(io[1]) + 2 * part;
    range[0] = ReduceMin(Min(low[0], low[1]));
    range[1] = ReduceMax(Max(high[0], high[1]));
  }
}

static void QDynamic(const void* args_block, void* const* io, int64_t begin, int64_t end, void*) {
  const QuantizeArgs& a = *static_cast<const QuantizeArgs*>(args_block);
  const auto* ranges = static_cast<const float*>(io[1]);
  float low = 0.0f;
  float high = 0.0f;
  for (int64_t part = 0; part < a.parts; ++part) {
    low = ranges[2 * part] < low ? ranges[2 * part] : low;
    high = ranges[2 * part + 1] > high ? ranges[2 * part + 1] : high;
  }
  const float scale = high == low ? 1.0f : (high - low) / 255.0f;
  const float level = -low / scale;  // NaN where low is infinite: then it is 255
  const float limited = !(level < 255.0f) ? 255.0f : level > 0.0f ? level : 0.0f;
  const float zero = std::nearbyint(limited);
  if (begin == 0) {
    auto* params = static_cast<float*>(io[3]);
    params[0] = scale;
    params[1] = zero;
  }
  QuantizeItemsOf(a, MakeQuantiser(scale, static_cast<int32_t>(zero), 0, 255),
                  static_cast<const float*>(io[0]), static_cast<float*>(io[2]), begin, end);
}

SRT_INLINE void DequantizeRow(const QuantizeArgs& a, int r, const float* x, float* y) {
  const CentredByte byte = MakeCentredByte(r, a.x_zero);
  const Vec scale = Set1(a.scale);
  for (int64_t i = 0; i < a.columns; i += Vec::kLanes) {
    const int64_t left = a.columns - i;
    const Mask tail = FirstN(static_cast<int>(left < Vec::kLanes ? left : Vec::kLanes));
    StoreMask(y + i, tail, Mul(Centre(LoadMask(x + i, tail), byte), scale));
  }
}

// The reverse of QuantizeChannels.
SRT_INLINE void DequantizeChannels(const QuantizeArgs& a, const float* x, int64_t channels,
                                   float* y) {
  constexpr int kLanes = Vec::kLanes;
  CentredByte byte[4];
  for (int r = 0; r < 4; ++r) byte[r] = MakeCentredByte(r, a.x_zero);
  const Vec scale = Set1(a.scale);
  for (int64_t i = 0; i < channels; i += 4 * kLanes) {
    const int64_t words = (channels - i + 3) / 4;
    const Vec v = LoadMask(x + i / 4, FirstN(static_cast<int>(words < kLanes ? words : kLanes)));
    Vec z[4];
#pragma GCC unroll 4
    for (int r = 0; r < 4; ++r) z[r] = Mul(Centre(v, byte[r]), scale);
    const Vec even[2] = {ZipLower(z[0], z[2]), ZipUpper(z[0], z[2])};
    const Vec odd[2] = {ZipLower(z[1], z[3]), ZipUpper(z[1], z[3])};
    const Vec out[4] = {ZipLower(even[0], odd[0]), ZipUpper(even[0], odd[0]),
                        ZipLower(even[1], odd[1]), ZipUpper(even[1], odd[1])};
#pragma GCC unroll 4
    for (int k = 0; k < 4; ++k) {
      const int64_t left = channels - i - k * kLanes;
      if (left <= 0) break;
      StoreMask(y + i + k * kLanes, FirstN(static_cast<int>(left < kLanes ? left : kLanes)),
                out[k]);
    }
  }
}

static void Dequantize(const void* args_block, void* const* io, int64_t begin, int64_t end, void*) {
  const QuantizeArgs& a = *static_cast<const QuantizeArgs*>(args_block);
  const bool side_by_side = a.columns == 1 && a.x_plane == 1 && a.y_plane == 1;
  for (int64_t item = begin, count = 1; item < end; item += count) {
    count = ItemsInRow(a, side_by_side, item, end);
    const int64_t image = item / a.planes;
    const int64_t plane = item % a.planes;
    const int64_t channels = a.channels - 4 * plane;
    const float* x = static_cast<const float*>(io[0]) + image * a.x_image + plane * a.x_plane;
    float* y = static_cast<float*>(io[1]) + image * a.y_image + 4 * plane * a.y_plane;
    if (side_by_side) {
      DequantizeChannels(a, x, channels < 4 * count ? channels : 4 * count, y);
      continue;
    }
    for (int r = 0; r < 4 && r < channels; ++r) DequantizeRow(a, r, x, y + r * a.y_plane);
  }
}

struct Addition {
  CentredByte a[4], b[4];
  Vec a_scale, b_scale;
  Vec low, high;
};

SRT_INLINE Vec Sum(const Addition& s, int r, Vec a, Vec b) {
  const Vec x = Mul(Centre(a, s.a[r]), s.a_scale);
  return Clamp(Add(x, Mul(Centre(b, s.b[r]), s.b_scale)), s.low, s.high);
}

static void QAdd(const void* args_block, void* const* io, int64_t begin, int64_t end, void*) {
  const QuantizeArgs& args = *static_cast<const QuantizeArgs*>(args_block);
  Addition s;
#pragma GCC unroll 4
  for (int r = 0; r < 4; ++r) {
    s.a[r] = MakeCentredByte(r, args.x_zero);
    s.b[r] = MakeCentredByte(r, args.b_zero);
  }
  s.a_scale = Set1(args.scale);
  s.b_scale = Set1(args.b_scale);
  s.low = Set1(static_cast<float>(args.low - args.zero));
  s.high = Set1(static_cast<float>(args.high - args.zero));
  const ByteRange range = MakeByteRange(args.zero, args.low, args.high);
  const bool side_by_side =
      args.columns == 1 && args.x_plane == 1 && args.b_plane == 1 && args.y_plane == 1;
  for (int64_t item = begin, count = 1; item < end; item += count) {
    count = ItemsInRow(args, side_by_side, item, end);
    const int64_t columns = side_by_side ? count : args.columns;
    const int64_t image = item / args.planes;
    const int64_t plane = item % args.planes;
    const float* a = static_cast<const float*>(io[0]) + image * args.x_image + plane * args.x_plane;
    const float* b = static_cast<const float*>(io[1]) + image * args.b_image + plane * args.b_plane;
    float* y = static_cast<float*>(io[2]) + image * args.y_image + plane * args.y_plane;
    for (int64_t i = 0; i < columns; i += Vec::kLanes) {
      const int64_t left = columns - i;
      const Mask tail = FirstN(static_cast<int>(left < Vec::kLanes ? left : Vec::kLanes));
      const Vec av = LoadMask(a + i, tail);
      const Vec bv = LoadMask(b + i, tail);
      StoreMask(y + i, tail,
                RoundToBytes(Sum(s, 0, av, bv), Sum(s, 1, av, bv), Sum(s, 2, av, bv),
                             Sum(s, 3, av, bv), range));
    }
  }
}

static void QLookup(const void* args_block, void* const* io, int64_t begin, int64_t end, void*) {
  const QuantizeArgs& a = *static_cast<const QuantizeArgs*>(args_block);
  const ByteTable table = LoadTable(a.table);
  const bool side_by_side = a.columns == 1 && a.x_plane == 1 && a.y_plane == 1;
  for (int64_t item = begin, count = 1; item < end; item += count) {
    count = ItemsInRow(a, side_by_side, item, end);
    const int64_t columns = side_by_side ? count : a.columns;
    const int64_t image = item / a.planes;
    const int64_t plane = item % a.planes;
    const float* x = static_cast<const float*>(io[0]) + image * a.x_image + plane * a.x_plane;
    float* y = static_cast<float*>(io[1]) + image * a.y_image + plane * a.y_plane;
    for (int64_t i = 0; i < columns; i += Vec::kLanes) {
      const int64_t left = columns - i;
      const Mask tail = FirstN(static_cast<int>(left < Vec::kLanes ? left : Vec::kLanes));
      StoreMask(y + i, tail, LookUp(table, LoadMask(x + i, tail)));
    }
  }
}

// One packed plane of `channels` channels; r: nullptr, floats or bytes.
template <bool kPlain>
static void ElementwisePlane(const QuantizeArgs& a, const ElementwiseEnd& end, const float* x,
                             const float* bias, const float* r, int channels, float* y) {
  CentredByte byte[4];
  for (int k = 0; k < 4; ++k) byte[k] = MakeCentredByte(k, a.x_zero);
  Vec shift[4];
  LoadShifts(bias, channels, shift);
  for (int64_t i = 0; i < a.columns; i += Vec::kLanes) {
    const int64_t left = a.columns - i;
    const Mask tail = FirstN(static_cast<int>(left < Vec::kLanes ? left : Vec::kLanes));
    const Vec bytes = LoadMask(x + i, tail);
    Vec z[4];
#pragma GCC unroll 4
    for (int k = 0; k < 4; ++k) z[k] = Centre(bytes, byte[k]);
    EndElementwise<kPlain>(end, z, shift, channels, r == nullptr ? nullptr : r + i, a.b_plane, tail,
                           y + i, a.y_plane);
  }
}

static void QElementwise(const void* args_block, void* const* io, int64_t begin, int64_t end,
                         void*) {
  const QuantizeArgs& a = *static_cast<const QuantizeArgs*>(args_block);
  const ElementwiseEnd how = MakeElementwiseEnd(a);
  for (int64_t item = begin; item < end; ++item) {
    const int64_t image = item / a.planes;
    const int64_t plane = item % a.planes;
    const int64_t left = a.channels - 4 * plane;
    const float* x = static_cast<const float*>(io[0]) + image * a.x_image + plane * a.x_plane;
    const float* r = static_cast<const float*>(io[1]);
    if (r != nullptr) r += image * a.b_image + (a.r_is_float ? 4 * plane : plane) * a.b_plane;
    float* y = static_cast<float*>(io[2]) + image * a.y_image +
               (a.y_is_float ? 4 * plane : plane) * a.y_plane;
    const float* bias = a.bias == nullptr ? nullptr : a.bias + 4 * plane;
    const int channels = static_cast<int>(left < 4 ? left : 4);
    if (!Vec::kShortCode && IsPlainElementwise(a)) {
      ElementwisePlane<true>(a, how, x, bias, r, channels, y);
    } else {
      ElementwisePlane<false>(a, how, x, bias, r, channels, y);
    }
  }
}

}  // namespace SRT_ISA
}  // namespace sparsert
