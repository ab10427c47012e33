// Floats of a stretch of x, by the bytes of PermPlace(). Include after vec_avx512.h.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

namespace sparsert {
namespace SRT_ISA {

// Of `floats` ones of x at least N: x itself, or a copy in `whole` with zeros behind it.
template <size_t N>
inline const float* WholeStretch(const float* x, int64_t floats, float (&whole)[N]) {
  if (floats >= static_cast<int64_t>(N)) return x;
  memset(whole, 0, sizeof(whole));
  memcpy(whole, x, static_cast<size_t>(floats) * sizeof(float));
  return whole;
}

// Of a stretch of 64.
inline Vec PermuteFloats(const float* x, const uint8_t* places) {
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(places));
  const __m512i index = _mm512_cvtepu8_epi32(bytes);
  const __mmask16 used = _mm_movepi8_mask(_mm_slli_epi16(bytes, 1));
  const __mmask16 upper = _mm_movepi8_mask(bytes);
  const __m512 low =
      _mm512_maskz_permutex2var_ps(used, _mm512_loadu_ps(x), index, _mm512_loadu_ps(x + 16));
  const __m512 high =
      _mm512_permutex2var_ps(_mm512_loadu_ps(x + 32), index, _mm512_loadu_ps(x + 48));
  return {_mm512_mask_mov_ps(low, upper, high)};
}

// Of a stretch of 32: a weight without a place gets any of them.
struct ShortPlaces {
  __m512i index;
  __mmask16 used;
};
inline ShortPlaces LoadShortPlaces(const uint8_t* places) {
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(places));
  return {_mm512_cvtepu8_epi32(bytes), _mm_movepi8_mask(_mm_slli_epi16(bytes, 1))};
}
inline Vec PermuteShort(Vec low, Vec high, ShortPlaces places) {
  return {_mm512_permutex2var_ps(low.v, places.index, high.v)};
}
// The same with 0 where a weight has no place.
inline Vec PermuteShortUsed(Vec low, Vec high, ShortPlaces places) {
  return {_mm512_maskz_permutex2var_ps(places.used, low.v, places.index, high.v)};
}

}  // namespace SRT_ISA
}  // namespace sparsert
