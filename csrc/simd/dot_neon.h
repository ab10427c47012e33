// Products of groups of four bytes over AArch64 NEON (see dot_scalar.h): by its dot product
// instruction where SRT_NEON_DOT is defined, else by widening multiplications.
#pragma once

#include <arm_neon.h>

#include <cstdint>

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

inline IntVec SetInts(int32_t a) { return {vdupq_n_s32(a)}; }
inline IntVec LoadInts(const int32_t* p) { return {vld1q_s32(p)}; }
inline void StoreInts(int32_t* p, IntVec a) { vst1q_s32(p, a.v); }
inline ByteVec ToBytes(Vec bytes) {
  const uint8x16_t x = vreinterpretq_u8_f32(bytes.v);
  return {vreinterpretq_s8_u8(veorq_u8(x, vdupq_n_u8(128)))};
}
inline ByteVec LoadBytes(const float* p) { return ToBytes({vld1q_f32(p)}); }
inline ByteVec SetBytes(const float* p) { return ToBytes({vld1q_dup_f32(p)}); }
inline ByteWeights LoadLaneWeights(const float* p) { return {vreinterpretq_s8_f32(vld1q_f32(p))}; }
inline ByteWeights ToWeights(Vec bytes) { return {vreinterpretq_s8_f32(bytes.v)}; }
inline ByteWeights LoadWeights(const float* p) { return {vreinterpretq_s8_f32(vld1q_dup_f32(p))}; }
inline IntVec Dot(ByteVec x, ByteWeights w, IntVec acc) {
#if defined(SRT_NEON_DOT)
  return {vdotq_s32(acc.v, x.v, w.v)};
#else
  const int32x4_t low = vpaddlq_s16(vmull_s8(vget_low_s8(x.v), vget_low_s8(w.v)));
  const int32x4_t high = vpaddlq_s16(vmull_high_s8(x.v, w.v));
  return {vaddq_s32(acc.v, vpaddq_s32(low, high))};
#endif
}
inline IntVec AddInts(IntVec a, IntVec b) { return {vaddq_s32(a.v, b.v)}; }
inline Vec ToFloats(IntVec a) { return {vcvtq_f32_s32(a.v)}; }
struct ByteRange {
  int16x8_t zero;
  uint8x16_t low, high;
};
inline ByteRange MakeByteRange(int32_t zero, int32_t low, int32_t high) {
  return {vdupq_n_s16(static_cast<int16_t>(zero)), vdupq_n_u8(static_cast<uint8_t>(low)),
          vdupq_n_u8(static_cast<uint8_t>(high))};
}
inline Vec RoundToBytes(Vec a, Vec b, Vec c, Vec d, ByteRange range) {
  const int16x8_t ab = vqmovn_high_s32(vqmovn_s32(vcvtnq_s32_f32(a.v)), vcvtnq_s32_f32(b.v));
  const int16x8_t cd = vqmovn_high_s32(vqmovn_s32(vcvtnq_s32_f32(c.v)), vcvtnq_s32_f32(d.v));
  const uint8x16_t rows =
      vqmovun_high_s16(vqmovun_s16(vqaddq_s16(ab, range.zero)), vqaddq_s16(cd, range.zero));
  static const uint8_t kByLane[16] = {0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15};
  const uint8x16_t clamped = vminq_u8(vmaxq_u8(rows, range.low), range.high);
  return {vreinterpretq_f32_u8(vqtbl1q_u8(clamped, vld1q_u8(kByLane)))};
}
template <int n>
inline Vec ByteToFloats(Vec bytes) {
  uint32x4_t bits = vreinterpretq_u32_f32(bytes.v);
  if (n != 0) bits = vshrq_n_u32(bits, n == 0 ? 1 : 8 * n);
  return {vcvtq_f32_u32(vandq_u32(bits, vdupq_n_u32(255)))};
}
inline Vec MaxBytes(Vec a, Vec b) {
  return {vreinterpretq_f32_u8(vmaxq_u8(vreinterpretq_u8_f32(a.v), vreinterpretq_u8_f32(b.v)))};
}

struct ByteTable {
  uint8x16x4_t quarter[4];
};
inline ByteTable LoadTable(const uint8_t* p) {
  return {{vld1q_u8_x4(p), vld1q_u8_x4(p + 64), vld1q_u8_x4(p + 128), vld1q_u8_x4(p + 192)}};
}
inline Vec LookUp(const ByteTable& table, Vec bytes) {
  // Places beyond a quarter leave what is there.
  const uint8x16_t x = vreinterpretq_u8_f32(bytes.v);
  uint8x16_t y = vqtbl4q_u8(table.quarter[0], x);
  y = vqtbx4q_u8(y, table.quarter[1], vsubq_u8(x, vdupq_n_u8(64)));
  y = vqtbx4q_u8(y, table.quarter[2], vsubq_u8(x, vdupq_n_u8(128)));
  return {vreinterpretq_f32_u8(vqtbx4q_u8(y, table.quarter[3], vsubq_u8(x, vdupq_n_u8(192))))};
}
inline Vec TurnGroups(Vec bytes) {
  static const uint8_t kTurn[16] = {0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15};
  return {vreinterpretq_f32_u8(vqtbl1q_u8(vreinterpretq_u8_f32(bytes.v), vld1q_u8(kTurn)))};
}

}  // namespace SRT_ISA
}  // namespace sparsert
