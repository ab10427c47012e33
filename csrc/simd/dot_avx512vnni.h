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
inline ByteWeights LoadWeights(const float* p) {
  return {_mm512_castps_si512(_mm512_set1_ps(*p))};
}
inline IntVec Dot(ByteVec x, ByteWeights w, IntVec acc) {
  return {_mm512_dpbusd_epi32(acc.v, x.v, w.v)};
}
inline Vec ToFloats(IntVec a) { return {_mm512_cvtepi32_ps(a.v)}; }
inline IntVec ToInts(Vec a) { return {_mm512_cvtps_epi32(a.v)}; }
inline Vec JoinBytes(IntVec a, IntVec b, IntVec c, IntVec d) {
  const __m512i low = _mm512_or_si512(a.v, _mm512_slli_epi32(b.v, 8));
  const __m512i high = _mm512_or_si512(_mm512_slli_epi32(c.v, 16), _mm512_slli_epi32(d.v, 24));
  return {_mm512_castsi512_ps(_mm512_or_si512(low, high))};
}
template <int n>
inline Vec ByteToFloats(Vec bytes) {
  const __m512i shifted = _mm512_srli_epi32(_mm512_castps_si512(bytes.v), 8 * n);
  return {_mm512_cvtepi32_ps(_mm512_and_si512(shifted, _mm512_set1_epi32(255)))};
}

}  // namespace SRT_ISA
}  // namespace sparsert
