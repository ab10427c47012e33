// Products of groups of four bytes over AArch64 NEON (see dot_scalar.h): by its dot product
// instruction where SRT_NEON_DOT is defined, else by widening multiplications.
#pragma once

#include <arm_neon.h>

#include <cstdint>

#include "base/arch.h"

namespace sparsert {
namespace SRT_ISA {

struct IntVec {
  int32x4_t v;
};
struct ByteVec {
  int8x16_t v;
};
struct ByteWeights {
  int8x16_t v;
};
// NEON multiplies signed by signed bytes.
constexpr int kByteOffset = 128;

SRT_INLINE IntVec SetInts(int32_t a) { return {vdupq_n_s32(a)}; }
SRT_INLINE IntVec LoadInts(const int32_t* p) { return {vld1q_s32(p)}; }
SRT_INLINE void StoreInts(int32_t* p, IntVec a) { vst1q_s32(p, a.v); }
SRT_INLINE ByteVec ToBytes(Vec bytes) {
  const uint8x16_t x = vreinterpretq_u8_f32(bytes.v);
  return {vreinterpretq_s8_u8(veorq_u8(x, vdupq_n_u8(128)))};
}
SRT_INLINE ByteVec LoadBytes(const float* p) { return ToBytes({vld1q_f32(p)}); }
SRT_INLINE ByteWeights LoadLaneWeights(const float* p) {
  return {vreinterpretq_s8_f32(vld1q_f32(p))};
}
SRT_INLINE ByteWeights ToWeights(Vec bytes) { return {vreinterpretq_s8_f32(bytes.v)}; }
SRT_INLINE ByteWeights LoadWeights(const float* p) {
  return {vreinterpretq_s8_f32(vld1q_dup_f32(p))};
}
SRT_INLINE IntVec Dot(ByteVec x, ByteWeights w, IntVec acc) {
#if defined(SRT_NEON_DOT)
  return {vdotq_s32(acc.v, x.v, w.v)};
#else
  const int32x4_t low = vpaddlq_s16(vmull_s8(vget_low_s8(x.v), vget_low_s8(w.v)));
  const int32x4_t high = vpaddlq_s16(vmull_high_s8(x.v, w.v));
  return {vaddq_s32(acc.v, vpaddq_s32(low, high))};
#endif
}
SRT_INLINE IntVec AddInts(IntVec a, IntVec b) { return {vaddq_s32(a.v, b.v)}; }
SRT_INLINE Vec ToFloats(IntVec a) { return {vcvtq_f32_s32(a.v)}; }
constexpr uint32_t kByteOrder = 0x0c080400u;
struct ByteRange {
  int16x8_t zero;
  uint8x16_t low, high, order;
};
SRT_INLINE ByteRange MakeByteRange(int32_t zero, int32_t low, int32_t high,
                                   uint32_t order = kByteOrder) {
  static const uint32_t kColumns[4] = {0, 0x01010101u, 0x02020202u, 0x03030303u};
  return {vdupq_n_s16(static_cast<int16_t>(zero)), vdupq_n_u8(static_cast<uint8_t>(low)),
          vdupq_n_u8(static_cast<uint8_t>(high)),
          vreinterpretq_u8_u32(vaddq_u32(vld1q_u32(kColumns), vdupq_n_u32(order)))};
}
// Four numbers of a, then of b, ...
template <bool kPlain>
SRT_INLINE uint8x16_t RoundAndClamp(Vec a, Vec b, Vec c, Vec d, const ByteRange& range) {
  const int16x8_t ab = vqmovn_high_s32(vqmovn_s32(vcvtnq_s32_f32(a.v)), vcvtnq_s32_f32(b.v));
  const int16x8_t cd = vqmovn_high_s32(vqmovn_s32(vcvtnq_s32_f32(c.v)), vcvtnq_s32_f32(d.v));
  if (kPlain) return vqmovun_high_s16(vqmovun_s16(ab), cd);
  const uint8x16_t rows =
      vqmovun_high_s16(vqmovun_s16(vqaddq_s16(ab, range.zero)), vqaddq_s16(cd, range.zero));
  return vminq_u8(vmaxq_u8(rows, range.low), range.high);
}
template <bool kPlain = false>
SRT_INLINE Vec RoundToBytes(Vec a, Vec b, Vec c, Vec d, ByteRange range) {
  const uint8x16_t clamped = RoundAndClamp<kPlain>(a, b, c, d, range);
  return {vreinterpretq_f32_u8(vqtbl1q_u8(clamped, range.order))};
}
SRT_INLINE Vec RoundColumns(Vec a, Vec b, Vec c, Vec d, ByteRange range) {
  return {vreinterpretq_f32_u8(RoundAndClamp<false>(a, b, c, d, range))};
}
struct CentredByte {
  int32x4_t shift, zero;
};
SRT_INLINE CentredByte MakeCentredByte(int n, int32_t zero) {
  return {vdupq_n_s32(-8 * n), vdupq_n_s32(zero)};
}
SRT_INLINE Vec Centre(Vec bytes, CentredByte byte) {
  const uint32x4_t shifted = vshlq_u32(vreinterpretq_u32_f32(bytes.v), byte.shift);
  const uint32x4_t one = vandq_u32(shifted, vdupq_n_u32(255));
  return {vcvtq_f32_s32(vsubq_s32(vreinterpretq_s32_u32(one), byte.zero))};
}
SRT_INLINE Vec RepeatFour(const float* p) { return {vld1q_f32(p)}; }
SRT_INLINE IntVec ToInts(Vec bits) { return {vreinterpretq_s32_f32(bits.v)}; }
SRT_INLINE void TransposeTaps(Vec a, Vec b, Vec c, Vec d, Vec (&out)[4]) {
  const uint8x16_t av = vreinterpretq_u8_f32(a.v);
  const uint8x16_t bv = vreinterpretq_u8_f32(b.v);
  const uint8x16_t cv = vreinterpretq_u8_f32(c.v);
  const uint8x16_t dv = vreinterpretq_u8_f32(d.v);
  const uint16x8_t low_ab = vreinterpretq_u16_u8(vzip1q_u8(av, bv));
  const uint16x8_t low_cd = vreinterpretq_u16_u8(vzip1q_u8(cv, dv));
  const uint16x8_t high_ab = vreinterpretq_u16_u8(vzip2q_u8(av, bv));
  const uint16x8_t high_cd = vreinterpretq_u16_u8(vzip2q_u8(cv, dv));
  out[0] = {vreinterpretq_f32_u16(vzip1q_u16(low_ab, low_cd))};
  out[1] = {vreinterpretq_f32_u16(vzip2q_u16(low_ab, low_cd))};
  out[2] = {vreinterpretq_f32_u16(vzip1q_u16(high_ab, high_cd))};
  out[3] = {vreinterpretq_f32_u16(vzip2q_u16(high_ab, high_cd))};
}
SRT_INLINE Vec MaxBytes(Vec a, Vec b) {
  return {vreinterpretq_f32_u8(vmaxq_u8(vreinterpretq_u8_f32(a.v), vreinterpretq_u8_f32(b.v)))};
}

struct ByteTable {
  uint8x16x4_t quarter[4];
};
SRT_INLINE ByteTable LoadTable(const uint8_t* p) {
  return {{vld1q_u8_x4(p), vld1q_u8_x4(p + 64), vld1q_u8_x4(p + 128), vld1q_u8_x4(p + 192)}};
}
SRT_INLINE Vec LookUp(const ByteTable& table, Vec bytes) {
  // Places beyond a quarter leave what is there.
  const uint8x16_t x = vreinterpretq_u8_f32(bytes.v);
  uint8x16_t y = vqtbl4q_u8(table.quarter[0], x);
  y = vqtbx4q_u8(y, table.quarter[1], vsubq_u8(x, vdupq_n_u8(64)));
  y = vqtbx4q_u8(y, table.quarter[2], vsubq_u8(x, vdupq_n_u8(128)));
  return {vreinterpretq_f32_u8(vqtbx4q_u8(y, table.quarter[3], vsubq_u8(x, vdupq_n_u8(192))))};
}
SRT_INLINE Vec TurnGroups(Vec bytes) {
  static const uint8_t kTurn[16] = {0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15};
  return {vreinterpretq_f32_u8(vqtbl1q_u8(vreinterpretq_u8_f32(bytes.v), vld1q_u8(kTurn)))};
}

}  // namespace SRT_ISA
}  // namespace sparsert

#include "simd/dot_defaults.h"
