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
inline ByteVec LoadBytes(const float* p) {
  const __m256i x = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return {_mm256_and_si256(x, _mm256_set1_epi16(255)), _mm256_srli_epi16(x, 8)};
}
inline ByteWeights LoadWeights(const float* p) {
  const __m256i w = _mm256_castps_si256(_mm256_broadcast_ss(p));
  return {_mm256_srai_epi16(_mm256_slli_epi16(w, 8), 8), _mm256_srai_epi16(w, 8)};
}
inline IntVec Dot(ByteVec x, ByteWeights w, IntVec acc) {
  const __m256i even = _mm256_madd_epi16(x.even, w.even);
  const __m256i odd = _mm256_madd_epi16(x.odd, w.odd);
  return {_mm256_add_epi32(acc.v, _mm256_add_epi32(even, odd))};
}
inline Vec ToFloats(IntVec a) { return {_mm256_cvtepi32_ps(a.v)}; }
inline IntVec ToInts(Vec a) { return {_mm256_cvtps_epi32(a.v)}; }
inline Vec JoinBytes(IntVec a, IntVec b, IntVec c, IntVec d) {
  const __m256i low = _mm256_or_si256(a.v, _mm256_slli_epi32(b.v, 8));
  const __m256i high = _mm256_or_si256(_mm256_slli_epi32(c.v, 16), _mm256_slli_epi32(d.v, 24));
  return {_mm256_castsi256_ps(_mm256_or_si256(low, high))};
}
template <int n>
inline Vec ByteToFloats(Vec bytes) {
  const __m256i shifted = _mm256_srli_epi32(_mm256_castps_si256(bytes.v), 8 * n);
  return {_mm256_cvtepi32_ps(_mm256_and_si256(shifted, _mm256_set1_epi32(255)))};
}

}  // namespace SRT_ISA
}  // namespace sparsert
