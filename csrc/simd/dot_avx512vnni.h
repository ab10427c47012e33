// Products of groups of four bytes over AVX512-VNNI (see dot_scalar.h).
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace sparsert {
namespace SRT_ISA {

struct IntVec {
  __m512i v;
};
struct ByteVec {
  __m512i v;
};
struct ByteWeights {
  __m512i v;
};
constexpr int kByteOffset = 0;

inline IntVec SetInts(int32_t a) { return {_mm512_set1_epi32(a)}; }
inline IntVec LoadInts(const int32_t* p) { return {_mm512_load_si512(p)}; }
inline void StoreInts(int32_t* p, IntVec a) { _mm512_store_si512(p, a.v); }
inline ByteVec LoadBytes(const float* p) { return {_mm512_loadu_si512(p)}; }
inline ByteVec ToBytes(Vec bytes) { return {_mm512_castps_si512(bytes.v)}; }
inline ByteWeights LoadLaneWeights(const float* p) { return {_mm512_loadu_si512(p)}; }
inline ByteWeights ToWeights(Vec bytes) { return {_mm512_castps_si512(bytes.v)}; }
inline ByteWeights LoadWeights(const float* p) { return {_mm512_castps_si512(_mm512_set1_ps(*p))}; }
// By hand: compilers copy the sums of the intrinsic from register to register and back.
inline IntVec Dot(ByteVec x, ByteWeights w, IntVec acc) {
  __asm__("vpdpbusd %2, %1, %0" : "+v"(acc.v) : "v"(x.v), "v"(w.v));
  return acc;
}
// Of the lower half of the lanes: a CPU whose units are half as wide takes half the time.
constexpr bool kHasHalfDots = true;
inline ByteVec LoadHalfBytes(const float* p) {
  return {_mm512_castsi256_si512(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
}
inline IntVec DotHalf(ByteVec x, ByteWeights w, IntVec acc) {
  __asm__("vpdpbusd %t2, %t1, %t0" : "+v"(acc.v) : "v"(x.v), "v"(w.v));
  return acc;
}
// Of x[0 .. 127], in bytes, the ones that `index` names. For CPUs with AVX512-VBMI only, which is
// why the compiler is not told of it.
inline ByteVec PermuteBytes(Vec low, Vec high, Vec index) {
  __m512i picked = _mm512_castps_si512(index.v);
  __asm__("vpermi2b %2, %1, %0" : "+v"(picked) : "v"(low.v), "v"(high.v));
  return {picked};
}
inline ByteVec PermuteBytes(const float* x, Vec index) {
  return PermuteBytes(LoadU(x), LoadU(x + 16), index);
}
inline IntVec AddInts(IntVec a, IntVec b) { return {_mm512_add_epi32(a.v, b.v)}; }
inline Vec ToFloats(IntVec a) { return {_mm512_cvtepi32_ps(a.v)}; }
constexpr uint32_t kByteOrder = 0x0c080400u;
struct ByteRange {
  __m512i zero, low, high, order;
};
inline ByteRange MakeByteRange(int32_t zero, int32_t low, int32_t high,
                               uint32_t order = kByteOrder) {
  const __m512i columns =
      _mm512_broadcast_i32x4(_mm_setr_epi32(0, 0x01010101, 0x02020202, 0x03030303));
  return {_mm512_set1_epi16(static_cast<int16_t>(zero)), _mm512_set1_epi8(static_cast<char>(low)),
          _mm512_set1_epi8(static_cast<char>(high)),
          _mm512_add_epi32(columns, _mm512_set1_epi32(static_cast<int32_t>(order)))};
}
// Each 128 bits: four numbers of a, then of b, ...
template <bool kPlain>
inline __m512i RoundAndClamp(Vec a, Vec b, Vec c, Vec d, const ByteRange& range) {
  const __m512i ab = _mm512_packs_epi32(_mm512_cvtps_epi32(a.v), _mm512_cvtps_epi32(b.v));
  const __m512i cd = _mm512_packs_epi32(_mm512_cvtps_epi32(c.v), _mm512_cvtps_epi32(d.v));
  if (kPlain) return _mm512_packus_epi16(ab, cd);
  const __m512i rows =
      _mm512_packus_epi16(_mm512_adds_epi16(ab, range.zero), _mm512_adds_epi16(cd, range.zero));
  return _mm512_min_epu8(_mm512_max_epu8(rows, range.low), range.high);
}
template <bool kPlain = false>
inline Vec RoundToBytes(Vec a, Vec b, Vec c, Vec d, ByteRange range) {
  const __m512i clamped = RoundAndClamp<kPlain>(a, b, c, d, range);
  return {_mm512_castsi512_ps(_mm512_shuffle_epi8(clamped, range.order))};
}
inline Vec RoundColumns(Vec a, Vec b, Vec c, Vec d, ByteRange range) {
  return {_mm512_castsi512_ps(RoundAndClamp<false>(a, b, c, d, range))};
}
struct CentredByte {
  __m512i place, zero;
};
inline CentredByte MakeCentredByte(int n, int32_t zero) {
  return {_mm512_set1_epi32(1 << (8 * n)), _mm512_set1_epi32(-zero)};
}
inline Vec Centre(Vec bytes, CentredByte byte) {
  return {
      _mm512_cvtepi32_ps(_mm512_dpbusd_epi32(byte.zero, _mm512_castps_si512(bytes.v), byte.place))};
}
// 2^23 + byte are the bits of a float, and what that is too much, times `scale`, is exact. Zen 4
// adds and converts in other units than it multiplies: sums by multiply-add keep all of them busy.
struct ScaledByte {
  __m512i place;
  __m512 scale, offset;
};
inline ScaledByte MakeScaledByte(int n, float scale) {
  return {_mm512_set1_epi32(1 << (8 * n)), _mm512_set1_ps(scale),
          _mm512_set1_ps(scale * -8388608.0f)};
}
inline Vec AddScaledByte(Vec z, Vec bytes, const ScaledByte& b) {
  const __m512i bits =
      _mm512_dpbusd_epi32(_mm512_set1_epi32(0x4b000000), _mm512_castps_si512(bytes.v), b.place);
  const __m512 product = _mm512_fmadd_ps(_mm512_castsi512_ps(bits), b.scale, b.offset);
  return {_mm512_fmadd_ps(z.v, _mm512_set1_ps(1.0f), product)};
}
constexpr bool kScalesBytesFaster = true;
inline Vec RepeatFour(const float* p) { return {_mm512_broadcast_f32x4(_mm_loadu_ps(p))}; }
inline IntVec ToInts(Vec bits) { return {_mm512_castps_si512(bits.v)}; }
inline void TransposeTaps(Vec a, Vec b, Vec c, Vec d, Vec (&out)[4]) {
  const __m512i av = _mm512_castps_si512(a.v);
  const __m512i bv = _mm512_castps_si512(b.v);
  const __m512i cv = _mm512_castps_si512(c.v);
  const __m512i dv = _mm512_castps_si512(d.v);
  const __m512i low_ab = _mm512_unpacklo_epi8(av, bv);
  const __m512i low_cd = _mm512_unpacklo_epi8(cv, dv);
  const __m512i high_ab = _mm512_unpackhi_epi8(av, bv);
  const __m512i high_cd = _mm512_unpackhi_epi8(cv, dv);
  out[0] = {_mm512_castsi512_ps(_mm512_unpacklo_epi16(low_ab, low_cd))};
  out[1] = {_mm512_castsi512_ps(_mm512_unpackhi_epi16(low_ab, low_cd))};
  out[2] = {_mm512_castsi512_ps(_mm512_unpacklo_epi16(high_ab, high_cd))};
  out[3] = {_mm512_castsi512_ps(_mm512_unpackhi_epi16(high_ab, high_cd))};
}
inline Vec MaxBytes(Vec a, Vec b) {
  return {_mm512_castsi512_ps(_mm512_max_epu8(_mm512_castps_si512(a.v), _mm512_castps_si512(b.v)))};
}

struct ByteTable {
  __m512i row[16];  // 16 entries, four times
};
inline ByteTable LoadTable(const uint8_t* p) {
  ByteTable table;
  for (int i = 0; i < 16; ++i) {
    table.row[i] =
        _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 16 * i)));
  }
  return table;
}
inline Vec LookUp(const ByteTable& table, Vec bytes) {
  // The low half of a byte picks an entry of each row; each higher bit, one of two.
  const __m512i x = _mm512_castps_si512(bytes.v);
  const __m512i low = _mm512_and_si512(x, _mm512_set1_epi8(15));
  __mmask64 bit[4];
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    bit[i] = _mm512_test_epi8_mask(x, _mm512_set1_epi8(static_cast<char>(16 << i)));
  }
  __m512i y[8];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    y[i] = _mm512_mask_shuffle_epi8(_mm512_shuffle_epi8(table.row[2 * i], low), bit[0],
                                    table.row[2 * i + 1], low);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) y[i] = _mm512_mask_mov_epi8(y[2 * i], bit[1], y[2 * i + 1]);
  y[0] = _mm512_mask_mov_epi8(y[0], bit[2], y[1]);
  y[1] = _mm512_mask_mov_epi8(y[2], bit[2], y[3]);
  return {_mm512_castsi512_ps(_mm512_mask_mov_epi8(y[0], bit[3], y[1]))};
}
inline Vec TurnGroups(Vec bytes) {
  const __m512i turn =
      _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
  return {_mm512_castsi512_ps(_mm512_shuffle_epi8(_mm512_castps_si512(bytes.v), turn))};
}

}  // namespace SRT_ISA
}  // namespace sparsert
