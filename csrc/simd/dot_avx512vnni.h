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
inline ByteVec SetBytes(const float* p) { return ToBytes({_mm512_set1_ps(*p)}); }
inline ByteWeights LoadLaneWeights(const float* p) { return {_mm512_loadu_si512(p)}; }
inline ByteWeights ToWeights(Vec bytes) { return {_mm512_castps_si512(bytes.v)}; }
inline ByteWeights LoadWeights(const float* p) { return {_mm512_castps_si512(_mm512_set1_ps(*p))}; }
inline IntVec Dot(ByteVec x, ByteWeights w, IntVec acc) {
  return {_mm512_dpbusd_epi32(acc.v, x.v, w.v)};
}
inline IntVec AddInts(IntVec a, IntVec b) { return {_mm512_add_epi32(a.v, b.v)}; }
inline Vec ToFloats(IntVec a) { return {_mm512_cvtepi32_ps(a.v)}; }
struct ByteRange {
  __m512i zero, low, high;
};
inline ByteRange MakeByteRange(int32_t zero, int32_t low, int32_t high) {
  return {_mm512_set1_epi16(static_cast<int16_t>(zero)), _mm512_set1_epi8(static_cast<char>(low)),
          _mm512_set1_epi8(static_cast<char>(high))};
}
inline Vec RoundToBytes(Vec a, Vec b, Vec c, Vec d, ByteRange range) {
  // Each 128 bits: four numbers of a, then of b, ...; and at last by lane.
  const __m512i ab = _mm512_packs_epi32(_mm512_cvtps_epi32(a.v), _mm512_cvtps_epi32(b.v));
  const __m512i cd = _mm512_packs_epi32(_mm512_cvtps_epi32(c.v), _mm512_cvtps_epi32(d.v));
  const __m512i rows =
      _mm512_packus_epi16(_mm512_adds_epi16(ab, range.zero), _mm512_adds_epi16(cd, range.zero));
  const __m512i clamped = _mm512_min_epu8(_mm512_max_epu8(rows, range.low), range.high);
  const __m512i by_lane =
      _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
  return {_mm512_castsi512_ps(_mm512_shuffle_epi8(clamped, by_lane))};
}
template <int n>
inline Vec ByteToFloats(Vec bytes) {
  const __m512i shifted = _mm512_srli_epi32(_mm512_castps_si512(bytes.v), 8 * n);
  return {_mm512_cvtepi32_ps(_mm512_and_si512(shifted, _mm512_set1_epi32(255)))};
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
