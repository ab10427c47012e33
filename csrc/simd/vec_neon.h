// Vec over AArch64 NEON: 4 floats. Include only from arm_neon*.cc files, with SRT_ISA defined.
#pragma once

#include <arm_neon.h>

#include <cstdint>

#include "base/arch.h"

// The instruction set whose files hold what is shared by all that have these vectors.
#define SRT_VEC_ISA neon

namespace sparsert {
namespace SRT_ISA {

struct Vec {
  static constexpr int kLanes = 4;
  static constexpr int kRegisters = 32;
  static constexpr int kLowerLanes = 0;  // (see vec_avx512.h)
  static constexpr bool kSlowPartialStores = true;
  // Short code before the last per cent of speed: fewer copies of what ends a tile.
  static constexpr bool kShortCode = true;
  float32x4_t v;
};

// All bits of a lane set or clear.
struct Mask {
  uint32x4_t m;
};

// (see vec_avx2.h) Products with denormals take no longer than others.
struct DenormalsAreZero {
  DenormalsAreZero() {}
};

SRT_INLINE Vec LoadU(const float* p) { return {vld1q_f32(p)}; }
SRT_INLINE Vec Load(const float* p) { return LoadU(p); }
SRT_INLINE void StoreU(float* p, Vec a) { vst1q_f32(p, a.v); }
SRT_INLINE void Store(float* p, Vec a) { StoreU(p, a); }
SRT_INLINE Vec Zero() { return {vdupq_n_f32(0.0f)}; }
SRT_INLINE Vec Set1(float x) { return {vdupq_n_f32(x)}; }
// The compiler may not load it from memory again.
SRT_INLINE void KeepInRegister(Vec* a) { __asm__("" : "+w"(a->v)); }

SRT_INLINE Mask FirstN(int n) {  // the first n lanes; n may be <= 0 or > kLanes
  static const int32_t kLane[4] = {0, 1, 2, 3};
  return {vcltq_s32(vld1q_s32(kLane), vdupq_n_s32(n))};
}
SRT_INLINE Mask MaskFromBits(uint32_t bits) {
  static const uint32_t kLaneBit[4] = {1, 2, 4, 8};
  return {vtstq_u32(vdupq_n_u32(bits), vld1q_u32(kLaneBit))};
}
SRT_INLINE uint32_t BitsOf(Mask m) {
  static const uint32_t kLaneBit[4] = {1, 2, 4, 8};
  return vaddvq_u32(vandq_u32(m.m, vld1q_u32(kLaneBit)));
}
// NEON has no masked access: full masks take the vector path, others go lane by lane. This is so
// much code that a file has one copy, not shared with others: callers know which registers it
// leaves alone.
SRT_INLINE Vec LoadLanesInline(const float* p, uint32_t bits) {
  float32x4_t r = vdupq_n_f32(0.0f);
  if (bits & 1) r = vld1q_lane_f32(p, r, 0);
  if (bits & 2) r = vld1q_lane_f32(p + 1, r, 1);
  if (bits & 4) r = vld1q_lane_f32(p + 2, r, 2);
  if (bits & 8) r = vld1q_lane_f32(p + 3, r, 3);
  return {r};
}
__attribute__((noinline, unused)) static Vec LoadLanes(const float* p, uint32_t bits) {
  return LoadLanesInline(p, bits);
}
__attribute__((noinline, unused)) static void StoreLanes(float* p, uint32_t bits, Vec a) {
  if (bits & 1) vst1q_lane_f32(p, a.v, 0);
  if (bits & 2) vst1q_lane_f32(p + 1, a.v, 1);
  if (bits & 4) vst1q_lane_f32(p + 2, a.v, 2);
  if (bits & 8) vst1q_lane_f32(p + 3, a.v, 3);
}
SRT_INLINE Vec LoadMask(const float* p, Mask m) {
  const uint32_t bits = BitsOf(m);
  return bits == 15 ? LoadU(p) : LoadLanes(p, bits);
}
// For loops that seldom have full masks.
SRT_INLINE Vec LoadMaskInline(const float* p, Mask m) {
  const uint32_t bits = BitsOf(m);
  return bits == 15 ? LoadU(p) : LoadLanesInline(p, bits);
}
SRT_INLINE void StoreMask(float* p, Mask m, Vec a) {
  const uint32_t bits = BitsOf(m);
  if (bits == 15) return StoreU(p, a);
  StoreLanes(p, bits, a);
}
// The first n lanes, of which `first_n` is the mask.
SRT_INLINE void StoreFirst(float* p, int, Mask first_n, Vec a) { StoreMask(p, first_n, a); }
// base[index[lane]]; lanes outside the mask read nothing and give 0.
SRT_INLINE Vec GatherMask(const float* base, const int32_t* index, Mask m) {
  const uint32_t bits = BitsOf(m);
  float32x4_t r = vdupq_n_f32(0.0f);
  if (bits & 1) r = vld1q_lane_f32(base + index[0], r, 0);
  if (bits & 2) r = vld1q_lane_f32(base + index[1], r, 1);
  if (bits & 4) r = vld1q_lane_f32(base + index[2], r, 2);
  if (bits & 8) r = vld1q_lane_f32(base + index[3], r, 3);
  return {r};
}
struct PickIndex {  // (see vec_avx512.h)
  const int32_t* p;
};
SRT_INLINE PickIndex LoadPickIndex(const int32_t* index) { return {index}; }
SRT_INLINE Vec LoadPicked(const float* p, PickIndex i, Mask m) { return GatherMask(p, i.p, m); }
// (see vec_avx512.h)
SRT_INLINE Vec PickLanes(Vec a, const int32_t* index, int32_t first) {
  // The four bytes of each lane.
  const uint32x4_t lane = vreinterpretq_u32_s32(vsubq_s32(vld1q_s32(index), vdupq_n_s32(first)));
  const uint32x4_t bytes = vmlaq_u32(vdupq_n_u32(0x03020100u), lane, vdupq_n_u32(0x04040404u));
  return {vreinterpretq_f32_u8(vqtbl1q_u8(vreinterpretq_u8_f32(a.v), vreinterpretq_u8_u32(bytes)))};
}
// base[index[lane]] with 16-bit indices.
SRT_INLINE Vec GatherU16(const float* base, const uint16_t* index) {
  float32x4_t r = vdupq_n_f32(base[index[0]]);
  r = vld1q_lane_f32(base + index[1], r, 1);
  r = vld1q_lane_f32(base + index[2], r, 2);
  r = vld1q_lane_f32(base + index[3], r, 3);
  return {r};
}
// (see vec_avx512.h)
template <int kParts>
SRT_INLINE Vec SetParts(const float* base, const uint16_t* index) {
  static_assert(kParts == 1 || kParts == 4);
  if constexpr (kParts == 4) return GatherU16(base, index);
  return {vld1q_dup_f32(base + index[0])};
}
using Stride2Mask = Mask;  // (see vec_avx512.h)
SRT_INLINE Stride2Mask SpreadMask(Mask m) { return m; }
// By the bits of a mask, the bytes of each lane's float among those that are set; 255: not set.
struct SpreadTable {
  uint8_t byte[16][16];
};
constexpr SpreadTable MakeSpreadTable() {
  SpreadTable t = {};
  for (int bits = 0; bits < 16; ++bits) {
    int next = 0;
    for (int lane = 0; lane < 4; ++lane) {
      const bool set = (bits >> lane & 1) != 0;
      for (int b = 0; b < 4; ++b) {
        t.byte[bits][lane * 4 + b] = static_cast<uint8_t>(set ? next * 4 + b : 255);
      }
      next += set;
    }
  }
  return t;
}
static constexpr SpreadTable kSpread = MakeSpreadTable();
// (see vec_avx512.h); reads p[0 .. 3].
SRT_INLINE Vec Spread(const float* p, uint32_t bits) {
  const uint8x16_t floats = vreinterpretq_u8_f32(vld1q_f32(p));
  return {vreinterpretq_f32_u8(vqtbl1q_u8(floats, vld1q_u8(kSpread.byte[bits])))};
}
// Lanes 0, 2, 4, ... and 1, 3, 5, ... of a followed by b.
SRT_INLINE Vec Evens(Vec a, Vec b) { return {vuzp1q_f32(a.v, b.v)}; }
SRT_INLINE Vec Odds(Vec a, Vec b) { return {vuzp2q_f32(a.v, b.v)}; }
// a0 b0 a1 b1 ...: of the lower half of the lanes, and of the upper half.
SRT_INLINE Vec ZipLower(Vec a, Vec b) { return {vzip1q_f32(a.v, b.v)}; }
SRT_INLINE Vec ZipUpper(Vec a, Vec b) { return {vzip2q_f32(a.v, b.v)}; }
// The lanes of a but the first one, then `next`.
SRT_INLINE Vec ShiftIn(Vec a, float next) { return {vextq_f32(a.v, vdupq_n_f32(next), 1)}; }
// p[0], p[2], p[4], p[6] where the mask is set, else 0; reads nothing for lanes outside the mask.
SRT_INLINE Vec LoadStride2Mask(const float* p, Mask m) {
  static const int32_t kEven[4] = {0, 2, 4, 6};
  return GatherMask(p, kEven, m);
}

SRT_INLINE Vec Add(Vec a, Vec b) { return {vaddq_f32(a.v, b.v)}; }
SRT_INLINE Vec Sub(Vec a, Vec b) { return {vsubq_f32(a.v, b.v)}; }
SRT_INLINE Vec Mul(Vec a, Vec b) { return {vmulq_f32(a.v, b.v)}; }
SRT_INLINE Vec Div(Vec a, Vec b) { return {vdivq_f32(a.v, b.v)}; }
SRT_INLINE Vec Fma(Vec a, Vec b, Vec c) { return {vfmaq_f32(c.v, a.v, b.v)}; }  // a * b + c
// p[0..3], each to be broadcast by Lane (into a multiply-add by element).
struct Quad {
  float32x4_t v;
};
SRT_INLINE Quad LoadQuad(const float* p) { return {vld1q_f32(p)}; }
template <int kLane>
SRT_INLINE Vec Lane(Quad q) {
  return {vdupq_laneq_f32(q.v, kLane)};
}
// No vector is wider than its lower lanes (see vec_avx512.h).
SRT_INLINE Vec LoadLowerMask(const float* p, Mask m) { return LoadMask(p, m); }
SRT_INLINE Vec EvensLower(Vec a, Vec b) { return Evens(a, b); }
SRT_INLINE Vec OddsLower(Vec a, Vec b) { return Odds(a, b); }
SRT_INLINE Vec ShiftInLower(Vec a, float next) { return ShiftIn(a, next); }
SRT_INLINE Vec LoadLower(const float* p) { return LoadU(p); }
SRT_INLINE Vec FmaLower(Vec a, Vec b, Vec c) { return Fma(a, b, c); }
SRT_INLINE Vec Fnma(Vec a, Vec b, Vec c) { return {vfmsq_f32(c.v, a.v, b.v)}; }  // c - a * b
// Min and Max return b when either operand is NaN, as on the other instruction sets.
SRT_INLINE Vec Min(Vec a, Vec b) { return {vbslq_f32(vcltq_f32(a.v, b.v), a.v, b.v)}; }
SRT_INLINE Vec Max(Vec a, Vec b) { return {vbslq_f32(vcgtq_f32(a.v, b.v), a.v, b.v)}; }
SRT_INLINE Vec Sqrt(Vec a) { return {vsqrtq_f32(a.v)}; }
SRT_INLINE Vec Abs(Vec a) { return {vabsq_f32(a.v)}; }
SRT_INLINE Vec Neg(Vec a) { return {vnegq_f32(a.v)}; }
SRT_INLINE Vec Floor(Vec a) { return {vrndmq_f32(a.v)}; }
SRT_INLINE Vec Ceil(Vec a) { return {vrndpq_f32(a.v)}; }
SRT_INLINE Vec Round(Vec a) { return {vrndnq_f32(a.v)}; }  // half to even

// Of the bits.
SRT_INLINE Vec Or(Vec a, Vec b) {
  return {vreinterpretq_f32_u32(vorrq_u32(vreinterpretq_u32_f32(a.v), vreinterpretq_u32_f32(b.v)))};
}

SRT_INLINE Mask Less(Vec a, Vec b) { return {vcltq_f32(a.v, b.v)}; }
SRT_INLINE Mask LessEqual(Vec a, Vec b) { return {vcleq_f32(a.v, b.v)}; }
SRT_INLINE Mask Equal(Vec a, Vec b) { return {vceqq_f32(a.v, b.v)}; }
SRT_INLINE Mask IsNan(Vec a) { return {vmvnq_u32(vceqq_f32(a.v, a.v))}; }
SRT_INLINE Vec Select(Mask m, Vec yes, Vec no) { return {vbslq_f32(m.m, yes.v, no.v)}; }

// a * 2^n for an integral n (as float) in [-252, 254]: two steps keep each factor normal.
SRT_INLINE Vec ScaleByPow2(Vec a, Vec n) {
  const int32x4_t whole = vcvtnq_s32_f32(n.v);
  const int32x4_t half = vshrq_n_s32(whole, 1);
  const int32x4_t bias = vdupq_n_s32(127);
  const float32x4_t lo = vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(half, bias), 23));
  const float32x4_t hi =
      vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(vsubq_s32(whole, half), bias), 23));
  return {vmulq_f32(vmulq_f32(a.v, lo), hi)};
}
// x = mantissa * 2^exponent with mantissa in [1, 2); x positive and normal.
SRT_INLINE Vec Exponent(Vec x) {
  const int32x4_t bits = vreinterpretq_s32_u32(vshrq_n_u32(vreinterpretq_u32_f32(x.v), 23));
  return {vcvtq_f32_s32(vsubq_s32(bits, vdupq_n_s32(127)))};
}
SRT_INLINE Vec Mantissa(Vec x) {
  const uint32x4_t fraction = vandq_u32(vreinterpretq_u32_f32(x.v), vdupq_n_u32(0x007fffff));
  return {vreinterpretq_f32_u32(vorrq_u32(fraction, vdupq_n_u32(0x3f800000)))};
}

SRT_INLINE float ReduceAdd(Vec a) { return vaddvq_f32(a.v); }
SRT_INLINE float ReduceMax(Vec a) { return vmaxvq_f32(a.v); }
SRT_INLINE float ReduceMin(Vec a) { return vminvq_f32(a.v); }

}  // namespace SRT_ISA
}  // namespace sparsert
