// Vec over AVX-512 (F, BW, VL, DQ): 16 floats. Include only from x86_avx512*.cc files, with SRT_ISA
// defined.
#pragma once

#include <immintrin.h>

#include <cstdint>

// (see vec_neon.h)
#define SRT_VEC_ISA avx512

namespace sparsert {
namespace SRT_ISA {

struct Vec {
  static constexpr int kLanes = 16;
  static constexpr int kRegisters = 32;
  // Lanes that LoadLower and FmaLower work on, for cores on which half a vector costs half as much;
  // 0: the instruction set has no use for them.
  static constexpr int kLowerLanes = 8;
  static constexpr bool kSlowPartialStores = false;
  static constexpr bool kShortCode = false;  // (see vec_neon.h)
  __m512 v;
};

// One bit per lane.
struct Mask {
  __mmask16 m;
};

// While one lives, denormals count as zeros in this thread. Each product with one would take a
// hundred times as long, and they turn up where nobody reads the result: behind the last column of
// a row that is computed in whole vectors, where bytes of other tensors may lie.
class DenormalsAreZero {
 public:
  DenormalsAreZero() : before_(_mm_getcsr()) { _mm_setcsr(before_ | 0x8040u); }
  ~DenormalsAreZero() { _mm_setcsr(before_); }
  DenormalsAreZero(const DenormalsAreZero&) = delete;
  DenormalsAreZero& operator=(const DenormalsAreZero&) = delete;

 private:
  uint32_t before_;
};

inline Vec Load(const float* p) { return {_mm512_load_ps(p)}; }  // aligned to 64 bytes
inline Vec LoadU(const float* p) { return {_mm512_loadu_ps(p)}; }
inline void Store(float* p, Vec a) { _mm512_store_ps(p, a.v); }
inline void StoreU(float* p, Vec a) { _mm512_storeu_ps(p, a.v); }
inline Vec Zero() { return {_mm512_setzero_ps()}; }
inline Vec Set1(float x) { return {_mm512_set1_ps(x)}; }
// The compiler may not load it from memory again.
inline void KeepInRegister(Vec* a) { __asm__("" : "+v"(a->v)); }

inline Mask FirstN(int n) {  // the first n lanes; n may be <= 0 or > kLanes
  if (n >= 16) return {static_cast<__mmask16>(0xffff)};
  return {static_cast<__mmask16>(n <= 0 ? 0 : (1u << n) - 1u)};
}
inline Mask MaskFromBits(uint32_t bits) { return {static_cast<__mmask16>(bits)}; }
// Lanes outside the mask read nothing and give 0.
inline Vec LoadMask(const float* p, Mask m) { return {_mm512_maskz_loadu_ps(m.m, p)}; }
// (see vec_neon.h)
inline Vec LoadMaskInline(const float* p, Mask m) { return LoadMask(p, m); }
inline void StoreMask(float* p, Mask m, Vec a) { _mm512_mask_storeu_ps(p, m.m, a.v); }
// The first n lanes, of which `first_n` is the mask.
inline void StoreFirst(float* p, int, Mask first_n, Vec a) { StoreMask(p, first_n, a); }
// base[index[lane]]; lanes outside the mask read nothing and give 0.
inline Vec GatherMask(const float* base, const int32_t* index, Mask m) {
  return {_mm512_mask_i32gather_ps(_mm512_setzero_ps(), m.m, _mm512_loadu_si512(index), base, 4)};
}
// Where each lane lies among 32 floats.
struct PickIndex {
  __m512i v;
};
inline PickIndex LoadPickIndex(const int32_t* index) { return {_mm512_loadu_si512(index)}; }
// p[index[lane]]; lanes outside the mask are 0; reads p[0 .. 31].
inline Vec LoadPicked(const float* p, PickIndex i, Mask m) {
  return {_mm512_maskz_permutex2var_ps(m.m, _mm512_loadu_ps(p), i.v, _mm512_loadu_ps(p + 16))};
}
// Lane index[lane] - first of a: these must be lanes, as far as their result counts.
inline Vec PickLanes(Vec a, const int32_t* index, int32_t first) {
  const __m512i lane = _mm512_sub_epi32(_mm512_loadu_si512(index), _mm512_set1_epi32(first));
  return {_mm512_permutexvar_ps(lane, a.v)};
}
// base[index[lane]] with 16-bit indices.
inline Vec GatherU16(const float* base, const uint16_t* index) {
  const __m512i i =
      _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(index)));
  return {_mm512_i32gather_ps(i, base, 4)};
}
// base[index[i]] in the i-th of kParts equal parts of the lanes.
template <int kParts>
inline Vec SetParts(const float* base, const uint16_t* index) {
  static_assert(kParts == 1 || kParts == 2 || kParts == 4 || kParts == 16);
  if constexpr (kParts == 16) return GatherU16(base, index);
  __m512 v = _mm512_set1_ps(base[index[0]]);
  const auto add = [&](int part, __mmask16 lanes) {
    v = _mm512_mask_broadcastss_ps(v, lanes, _mm_load_ss(base + index[part]));
  };
  if constexpr (kParts == 2) add(1, 0xff00);
  if constexpr (kParts == 4) {
    add(1, 0x00f0);
    add(2, 0x0f00);
    add(3, 0xf000);
  }
  return {v};
}
// The next of p[0], p[1], ... in each lane whose bit is set, from the lowest on; the others are 0.
// Reads p[0 .. 15].
inline Vec Spread(const float* p, uint32_t bits) {
  return {_mm512_maskz_expand_ps(static_cast<__mmask16>(bits), _mm512_loadu_ps(p))};
}
// Lanes 0, 2, 4, ... and 1, 3, 5, ... of a followed by b.
inline Vec Evens(Vec a, Vec b) {
  const __m512i even = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
  return {_mm512_permutex2var_ps(a.v, even, b.v)};
}
inline Vec Odds(Vec a, Vec b) {
  const __m512i odd = _mm512_set_epi32(31, 29, 27, 25, 23, 21, 19, 17, 15, 13, 11, 9, 7, 5, 3, 1);
  return {_mm512_permutex2var_ps(a.v, odd, b.v)};
}
// a0 b0 a1 b1 ...: of the lower half of the lanes, and of the upper half.
inline Vec ZipLower(Vec a, Vec b) {
  const __m512i zip = _mm512_set_epi32(23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  return {_mm512_permutex2var_ps(a.v, zip, b.v)};
}
inline Vec ZipUpper(Vec a, Vec b) {
  const __m512i zip =
      _mm512_set_epi32(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8);
  return {_mm512_permutex2var_ps(a.v, zip, b.v)};
}
// The lanes of a but the first one, then `next`.
inline Vec ShiftIn(Vec a, float next) {
  const __m512i n = _mm512_castps_si512(_mm512_set1_ps(next));
  return {_mm512_castsi512_ps(_mm512_alignr_epi32(n, _mm512_castps_si512(a.v), 1))};
}
// `first`, then the lanes of a but the last one.
inline Vec ShiftUp(float first, Vec a) {
  const __m512i f = _mm512_castps_si512(_mm512_set1_ps(first));
  return {_mm512_castsi512_ps(_mm512_alignr_epi32(_mm512_castps_si512(a.v), f, 15))};
}
// The last lane of `before`, then those of a but its last one.
inline Vec ShiftUp(Vec before, Vec a) {
  return {_mm512_castsi512_ps(
      _mm512_alignr_epi32(_mm512_castps_si512(a.v), _mm512_castps_si512(before.v), 15))};
}
// A mask of lanes, spread to the floats that stride 2 reads for them.
struct Stride2Mask {
  __mmask16 lo, hi;
};
inline Stride2Mask SpreadMask(Mask m) {
  const uint32_t wide = _pdep_u32(m.m, 0x55555555u);
  return {static_cast<__mmask16>(wide), static_cast<__mmask16>(wide >> 16)};
}
// p[0], p[2], ..., p[30] where the mask is set, else 0; reads nothing for lanes outside the mask.
inline Vec LoadStride2Mask(const float* p, Stride2Mask m) {
  return Evens(LoadMask(p, {m.lo}), LoadMask(p + 16, {m.hi}));
}
inline Vec LoadStride2Mask(const float* p, Mask m) { return LoadStride2Mask(p, SpreadMask(m)); }

inline Vec Add(Vec a, Vec b) { return {_mm512_add_ps(a.v, b.v)}; }
inline Vec Sub(Vec a, Vec b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline Vec Mul(Vec a, Vec b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline Vec Div(Vec a, Vec b) { return {_mm512_div_ps(a.v, b.v)}; }
inline Vec Fma(Vec a, Vec b, Vec c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }  // a * b + c
// p[0..3], each to be broadcast by Lane: one load instead of four.
struct Quad {
  __m512 v;
};
inline Quad LoadQuad(const float* p) {
  Quad q = {_mm512_broadcast_f32x4(_mm_loadu_ps(p))};
  __asm__("" : "+v"(q.v));  // keeps the compiler from broadcasting each element from memory
  return q;
}
template <int kLane>
inline Vec Lane(Quad q) {
  return {_mm512_permute_ps(q.v, kLane * 0x55)};
}
// Of the lower lanes; the others become 0.
inline Vec LoadLower(const float* p) { return {_mm512_zextps256_ps512(_mm256_loadu_ps(p))}; }
inline Vec LoadLowerMask(const float* p, Mask m) {
  return {_mm512_zextps256_ps512(_mm256_maskz_loadu_ps(static_cast<__mmask8>(m.m), p))};
}
inline Vec EvensLower(Vec a, Vec b) {
  return {_mm512_zextps256_ps512(_mm256_permutex2var_ps(
      _mm512_castps512_ps256(a.v), _mm256_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14),
      _mm512_castps512_ps256(b.v)))};
}
inline Vec OddsLower(Vec a, Vec b) {
  return {_mm512_zextps256_ps512(_mm256_permutex2var_ps(
      _mm512_castps512_ps256(a.v), _mm256_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15),
      _mm512_castps512_ps256(b.v)))};
}
inline Vec ShiftInLower(Vec a, float next) {
  const __m256i n = _mm256_castps_si256(_mm256_set1_ps(next));
  const __m256i shifted =
      _mm256_alignr_epi32(n, _mm512_castsi512_si256(_mm512_castps_si512(a.v)), 1);
  return {_mm512_zextps256_ps512(_mm256_castsi256_ps(shifted))};
}
inline Vec FmaLower(Vec a, Vec b, Vec c) {
  return {_mm512_zextps256_ps512(_mm256_fmadd_ps(
      _mm512_castps512_ps256(a.v), _mm512_castps512_ps256(b.v), _mm512_castps512_ps256(c.v)))};
}
inline Vec Fnma(Vec a, Vec b, Vec c) { return {_mm512_fnmadd_ps(a.v, b.v, c.v)}; }  // c - a * b
// Min and Max return b when either operand is NaN.
inline Vec Min(Vec a, Vec b) { return {_mm512_min_ps(a.v, b.v)}; }
inline Vec Max(Vec a, Vec b) { return {_mm512_max_ps(a.v, b.v)}; }
inline Vec Sqrt(Vec a) { return {_mm512_sqrt_ps(a.v)}; }
inline Vec Abs(Vec a) { return {_mm512_abs_ps(a.v)}; }
inline Vec Neg(Vec a) {
  return {_mm512_castsi512_ps(
      _mm512_xor_si512(_mm512_castps_si512(a.v), _mm512_set1_epi32(INT32_MIN)))};
}
inline Vec Floor(Vec a) {
  return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC)};
}
inline Vec Ceil(Vec a) {
  return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_POS_INF | _MM_FROUND_NO_EXC)};
}
inline Vec Round(Vec a) {  // half to even
  return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}

// Of the bits.
inline Vec Or(Vec a, Vec b) { return {_mm512_or_ps(a.v, b.v)}; }

inline Mask Less(Vec a, Vec b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ)}; }
inline Mask LessEqual(Vec a, Vec b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LE_OQ)}; }
inline Mask Equal(Vec a, Vec b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_EQ_OQ)}; }
inline Mask IsNan(Vec a) { return {_mm512_cmp_ps_mask(a.v, a.v, _CMP_UNORD_Q)}; }
inline Vec Select(Mask m, Vec yes, Vec no) { return {_mm512_mask_blend_ps(m.m, no.v, yes.v)}; }

// a * 2^n for an integral n (as float) that keeps the result normal or overflows to infinity.
inline Vec ScaleByPow2(Vec a, Vec n) { return {_mm512_scalef_ps(a.v, n.v)}; }
// x = mantissa * 2^exponent with mantissa in [1, 2); x positive and normal or denormal.
inline Vec Exponent(Vec x) { return {_mm512_getexp_ps(x.v)}; }
inline Vec Mantissa(Vec x) {
  return {_mm512_getmant_ps(x.v, _MM_MANT_NORM_1_2, _MM_MANT_SIGN_src)};
}

inline float ReduceAdd(Vec a) { return _mm512_reduce_add_ps(a.v); }
inline float ReduceMax(Vec a) { return _mm512_reduce_max_ps(a.v); }
inline float ReduceMin(Vec a) { return _mm512_reduce_min_ps(a.v); }

}  // namespace SRT_ISA
}  // namespace sparsert
