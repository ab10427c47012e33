// Products of groups of four bytes over AVX2 (see dot_scalar.h), by 16-bit multiply-adds: the
// instruction for bytes saturates.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

namespace sparsert {
namespace SRT_ISA {

struct IntVec {
  __m256i v;
};
struct ByteVec {
  __m256i even, odd;  // bytes 0 and 2, and 1 and 3, as 16-bit numbers
};
struct ByteWeights {
  __m256i even, odd;
};
constexpr int kByteOffset = 0;

inline IntVec SetInts(int32_t a) { return {_mm256_set1_epi32(a)}; }
inline IntVec LoadInts(const int32_t* p) {
  return {_mm256_load_si256(reinterpret_cast<const __m256i*>(p))};
}
inline void StoreInts(int32_t* p, IntVec a) {
  _mm256_store_si256(reinterpret_cast<__m256i*>(p), a.v);
}
inline ByteVec ToBytes(Vec bytes) {
  const __m256i x = _mm256_castps_si256(bytes.v);
  return {_mm256_and_si256(x, _mm256_set1_epi16(255)), _mm256_srli_epi16(x, 8)};
}
inline ByteVec LoadBytes(const float* p) { return ToBytes(LoadU(p)); }
inline ByteWeights ToWeights(Vec bytes) {
  const __m256i w = _mm256_castps_si256(bytes.v);
  return {_mm256_srai_epi16(_mm256_slli_epi16(w, 8), 8), _mm256_srai_epi16(w, 8)};
}
inline ByteWeights LoadLaneWeights(const float* p) { return ToWeights(LoadU(p)); }
inline ByteWeights LoadWeights(const float* p) { return ToWeights({_mm256_broadcast_ss(p)}); }
inline IntVec Dot(ByteVec x, ByteWeights w, IntVec acc) {
  const __m256i even = _mm256_madd_epi16(x.even, w.even);
  const __m256i odd = _mm256_madd_epi16(x.odd, w.odd);
  return {_mm256_add_epi32(acc.v, _mm256_add_epi32(even, odd))};
}
inline IntVec AddInts(IntVec a, IntVec b) { return {_mm256_add_epi32(a.v, b.v)}; }
inline Vec ToFloats(IntVec a) { return {_mm256_cvtepi32_ps(a.v)}; }
constexpr uint32_t kByteOrder = 0x0c080400u;
struct ByteRange {
  __m256i zero, low, high, order;
};
inline ByteRange MakeByteRange(int32_t zero, int32_t low, int32_t high,
                               uint32_t order = kByteOrder) {
  const __m256i columns =
      _mm256_broadcastsi128_si256(_mm_setr_epi32(0, 0x01010101, 0x02020202, 0x03030303));
  return {_mm256_set1_epi16(static_cast<int16_t>(zero)), _mm256_set1_epi8(static_cast<char>(low)),
          _mm256_set1_epi8(static_cast<char>(high)),
          _mm256_add_epi32(columns, _mm256_set1_epi32(static_cast<int32_t>(order)))};
}
// Each 128 bits: four numbers of a, then of b, ...
template <bool kPlain>
inline __m256i RoundAndClamp(Vec a, Vec b, Vec c, Vec d, const ByteRange& range) {
  const __m256i ab = _mm256_packs_epi32(_mm256_cvtps_epi32(a.v), _mm256_cvtps_epi32(b.v));
  const __m256i cd = _mm256_packs_epi32(_mm256_cvtps_epi32(c.v), _mm256_cvtps_epi32(d.v));
  if (kPlain) return _mm256_packus_epi16(ab, cd);
  const __m256i rows =
      _mm256_packus_epi16(_mm256_adds_epi16(ab, range.zero), _mm256_adds_epi16(cd, range.zero));
  return _mm256_min_epu8(_mm256_max_epu8(rows, range.low), range.high);
}
template <bool kPlain = false>
inline Vec RoundToBytes(Vec a, Vec b, Vec c, Vec d, ByteRange range) {
  const __m256i clamped = RoundAndClamp<kPlain>(a, b, c, d, range);
  return {_mm256_castsi256_ps(_mm256_shuffle_epi8(clamped, range.order))};
}
inline Vec RoundColumns(Vec a, Vec b, Vec c, Vec d, ByteRange range) {
  return {_mm256_castsi256_ps(RoundAndClamp<false>(a, b, c, d, range))};
}
struct CentredByte {
  __m256i place, zero;
};
inline CentredByte MakeCentredByte(int n, int32_t zero) {
  const __m256i lanes = _mm256_broadcastsi128_si256(_mm_setr_epi32(0, 0x04, 0x08, 0x0c));
  const __m256i unused = _mm256_set1_epi32(static_cast<int32_t>(0x80808000u) + n);
  return {_mm256_add_epi32(lanes, unused), _mm256_set1_epi32(zero)};
}
inline Vec Centre(Vec bytes, CentredByte byte) {
  const __m256i one = _mm256_shuffle_epi8(_mm256_castps_si256(bytes.v), byte.place);
  return {_mm256_cvtepi32_ps(_mm256_sub_epi32(one, byte.zero))};
}
inline Vec RepeatFour(const float* p) {
  return {_mm256_broadcast_ps(reinterpret_cast<const __m128*>(p))};
}
inline IntVec ToInts(Vec bits) { return {_mm256_castps_si256(bits.v)}; }
inline void TransposeTaps(Vec a, Vec b, Vec c, Vec d, Vec (&out)[4]) {
  const __m256i av = _mm256_castps_si256(a.v);
  const __m256i bv = _mm256_castps_si256(b.v);
  const __m256i cv = _mm256_castps_si256(c.v);
  const __m256i dv = _mm256_castps_si256(d.v);
  const __m256i low_ab = _mm256_unpacklo_epi8(av, bv);
  const __m256i low_cd = _mm256_unpacklo_epi8(cv, dv);
  const __m256i high_ab = _mm256_unpackhi_epi8(av, bv);
  const __m256i high_cd = _mm256_unpackhi_epi8(cv, dv);
  out[0] = {_mm256_castsi256_ps(_mm256_unpacklo_epi16(low_ab, low_cd))};
  out[1] = {_mm256_castsi256_ps(_mm256_unpackhi_epi16(low_ab, low_cd))};
  out[2] = {_mm256_castsi256_ps(_mm256_unpacklo_epi16(high_ab, high_cd))};
  out[3] = {_mm256_castsi256_ps(_mm256_unpackhi_epi16(high_ab, high_cd))};
}
inline Vec MaxBytes(Vec a, Vec b) {
  return {_mm256_castsi256_ps(_mm256_max_epu8(_mm256_castps_si256(a.v), _mm256_castps_si256(b.v)))};
}

struct ByteTable {
  __m256i row[16];  // 16 entries, twice
};
inline ByteTable LoadTable(const uint8_t* p) {
  ByteTable table;
  for (int i = 0; i < 16; ++i) {
    table.row[i] =
        _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 16 * i)));
  }
  return table;
}
inline Vec LookUp(const ByteTable& table, Vec bytes) {
  // The low half of a byte picks an entry of each row; each higher bit, one of two.
  const __m256i x = _mm256_castps_si256(bytes.v);
  const __m256i low = _mm256_and_si256(x, _mm256_set1_epi8(15));
  const __m256i bit[4] = {_mm256_slli_epi16(x, 3), _mm256_slli_epi16(x, 2), _mm256_slli_epi16(x, 1),
                          x};
  __m256i y[8];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    y[i] = _mm256_blendv_epi8(_mm256_shuffle_epi8(table.row[2 * i], low),
                              _mm256_shuffle_epi8(table.row[2 * i + 1], low), bit[0]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) y[i] = _mm256_blendv_epi8(y[2 * i], y[2 * i + 1], bit[1]);
  y[0] = _mm256_blendv_epi8(y[0], y[1], bit[2]);
  y[1] = _mm256_blendv_epi8(y[2], y[3], bit[2]);
  return {_mm256_castsi256_ps(_mm256_blendv_epi8(y[0], y[1], bit[3]))};
}
inline Vec TurnGroups(Vec bytes) {
  const __m256i turn = _mm256_broadcastsi128_si256(
      _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
  return {_mm256_castsi256_ps(_mm256_shuffle_epi8(_mm256_castps_si256(bytes.v), turn))};
}

}  // namespace SRT_ISA
}  // namespace sparsert

#include "simd/dot_defaults.h"
