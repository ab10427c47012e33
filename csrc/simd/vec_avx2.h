// Vec over AVX2 and FMA: 8 floats. Include only from x86_avx2.cc files.
#pragma once

#include <immintrin.h>

#include <cstdint>

// (see vec_neon.h)
#define SRT_VEC_ISA avx2

namespace sparsert {
namespace avx2 {

struct Vec {
  static constexpr int kLanes = 8;
  static constexpr int kRegisters = 16;
  static constexpr int kLowerLanes = 0;             // (see vec_avx512.h)
  static constexpr bool kSlowPartialStores = true;  // masked ones are, on AMD
  static constexpr bool kShortCode = false;         // (see vec_neon.h)
  __m256 v;
};

// All bits of a lane set or clear.
struct Mask {
  __m256 m;
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

inline Vec Load(const float* p) { return {_mm256_load_ps(p)}; }  // aligned to 32 bytes
inline Vec LoadU(const float* p) { return {_mm256_loadu_ps(p)}; }
inline void Store(float* p, Vec a) { _mm256_store_ps(p, a.v); }
inline void StoreU(float* p, Vec a) { _mm256_storeu_ps(p, a.v); }
inline Vec Zero() { return {_mm256_setzero_ps()}; }
inline Vec Set1(float x) { return {_mm256_set1_ps(x)}; }
// The compiler may not load it from memory again.
inline void KeepInRegister(Vec* a) { __asm__("" : "+x"(a->v)); }

inline Mask FirstN(int n) {  // the first n lanes; n may be <= 0 or > kLanes
  const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return {_mm256_castsi256_ps(_mm256_cmpgt_epi32(_mm256_set1_epi32(n), lanes))};
}
inline Mask MaskFromBits(uint32_t bits) {
  const __m256i lane_bit = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
  const __m256i set = _mm256_and_si256(_mm256_set1_epi32(static_cast<int>(bits)), lane_bit);
  return {_mm256_castsi256_ps(_mm256_cmpeq_epi32(set, lane_bit))};
}
// Lanes outside the mask read nothing and give 0.
inline Vec LoadMask(const float* p, Mask m) {
  return {_mm256_maskload_ps(p, _mm256_castps_si256(m.m))};
}
// (see vec_neon.h)
inline Vec LoadMaskInline(const float* p, Mask m) { return LoadMask(p, m); }
inline void StoreMask(float* p, Mask m, Vec a) {
  _mm256_maskstore_ps(p, _mm256_castps_si256(m.m), a.v);
}
// The first n lanes, of which `first_n` is the mask.
inline void StoreFirst(float* p, int n, Mask, Vec a) {
  if (n >= 8) return StoreU(p, a);
  __m128 rest = _mm256_castps256_ps128(a.v);
  if ((n & 4) != 0) {
    _mm_storeu_ps(p, rest);
    rest = _mm256_extractf128_ps(a.v, 1);
    p += 4;
  }
  if ((n & 2) != 0) {
    _mm_storel_pi(reinterpret_cast<__m64*>(p), rest);
    rest = _mm_movehl_ps(rest, rest);
    p += 2;
  }
  if ((n & 1) != 0) _mm_store_ss(p, rest);
}
// base[index[lane]]; lanes outside the mask read nothing and give 0.
inline Vec GatherMask(const float* base, const int32_t* index, Mask m) {
  const __m256i i = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(index));
  return {_mm256_mask_i32gather_ps(_mm256_setzero_ps(), base, i, m.m, 4)};
}
struct PickIndex {  // (see vec_avx512.h)
  const int32_t* p;
};
inline PickIndex LoadPickIndex(const int32_t* index) { return {index}; }
inline Vec LoadPicked(const float* p, PickIndex i, Mask m) { return GatherMask(p, i.p, m); }
// (see vec_avx512.h)
inline Vec PickLanes(Vec a, const int32_t* index, int32_t first) {
  const __m256i i = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(index));
  return {_mm256_permutevar8x32_ps(a.v, _mm256_sub_epi32(i, _mm256_set1_epi32(first)))};
}
// base[index[lane]] with 16-bit indices.
inline Vec GatherU16(const float* base, const uint16_t* index) {
  const __m256i i = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(index)));
  return {_mm256_i32gather_ps(base, i, 4)};
}
// (see vec_avx512.h)
template <int kParts>
inline Vec SetParts(const float* base, const uint16_t* index) {
  static_assert(kParts == 1 || kParts == 2 || kParts == 8);
  if constexpr (kParts == 8) return GatherU16(base, index);
  const __m256 first = _mm256_broadcast_ss(base + index[0]);
  if constexpr (kParts == 1) return {first};
  return {_mm256_blend_ps(first, _mm256_broadcast_ss(base + index[kParts - 1]), 0xf0)};
}
// By the bits of a mask, the place of each lane's float among those that are set; -1: not set.
struct SpreadTable {
  int8_t place[256][8];
};
constexpr SpreadTable MakeSpreadTable() {
  SpreadTable t = {};
  for (int bits = 0; bits < 256; ++bits) {
    int8_t next = 0;
    for (int lane = 0; lane < 8; ++lane) {
      t.place[bits][lane] = (bits >> lane & 1) != 0 ? next++ : int8_t{-1};
    }
  }
  return t;
}
static constexpr SpreadTable kSpread = MakeSpreadTable();
// (see vec_avx512.h); reads p[0 .. 7].
inline Vec Spread(const float* p, uint32_t bits) {
  const auto* row = reinterpret_cast<const __m128i*>(kSpread.place[bits]);
  const __m256i place = _mm256_cvtepi8_epi32(_mm_loadl_epi64(row));
  const __m256 moved = _mm256_permutevar8x32_ps(_mm256_loadu_ps(p), place);
  return {_mm256_blendv_ps(moved, _mm256_setzero_ps(), _mm256_castsi256_ps(place))};
}
// Lanes 0, 2, 4, ... and 1, 3, 5, ... of a followed by b.
inline Vec Evens(Vec a, Vec b) {
  const __m256d pairs = _mm256_castps_pd(_mm256_shuffle_ps(a.v, b.v, 0x88));
  return {_mm256_castpd_ps(_mm256_permute4x64_pd(pairs, 0xd8))};
}
inline Vec Odds(Vec a, Vec b) {
  const __m256d pairs = _mm256_castps_pd(_mm256_shuffle_ps(a.v, b.v, 0xdd));
  return {_mm256_castpd_ps(_mm256_permute4x64_pd(pairs, 0xd8))};
}
// a0 b0 a1 b1 ...: of the lower half of the lanes, and of the upper half.
inline Vec ZipLower(Vec a, Vec b) {
  return {_mm256_permute2f128_ps(_mm256_unpacklo_ps(a.v, b.v), _mm256_unpackhi_ps(a.v, b.v), 0x20)};
}
inline Vec ZipUpper(Vec a, Vec b) {
  return {_mm256_permute2f128_ps(_mm256_unpacklo_ps(a.v, b.v), _mm256_unpackhi_ps(a.v, b.v), 0x31)};
}
// The lanes of a but the first one, then `next`.
inline Vec ShiftIn(Vec a, float next) {
  const __m256 b = _mm256_blend_ps(a.v, _mm256_set1_ps(next), 1);
  return {_mm256_permutevar8x32_ps(b, _mm256_setr_epi32(1, 2, 3, 4, 5, 6, 7, 0))};
}
// A mask of lanes, spread to the floats that stride 2 reads for them.
struct Stride2Mask {
  Mask lo, hi;
};
inline Stride2Mask SpreadMask(Mask m) {
  const uint32_t wide = _pdep_u32(static_cast<uint32_t>(_mm256_movemask_ps(m.m)), 0x5555u);
  return {MaskFromBits(wide), MaskFromBits(wide >> 8)};
}
// p[0], p[2], ..., p[14] where the mask is set, else 0; reads nothing for lanes outside the mask.
inline Vec LoadStride2Mask(const float* p, Stride2Mask m) {
  return Evens(LoadMask(p, m.lo), LoadMask(p + 8, m.hi));
}
inline Vec LoadStride2Mask(const float* p, Mask m) { return LoadStride2Mask(p, SpreadMask(m)); }

inline Vec Add(Vec a, Vec b) { return {_mm256_add_ps(a.v, b.v)}; }
inline Vec Sub(Vec a, Vec b) { return {_mm256_sub_ps(a.v, b.v)}; }
inline Vec Mul(Vec a, Vec b) { return {_mm256_mul_ps(a.v, b.v)}; }
inline Vec Div(Vec a, Vec b) { return {_mm256_div_ps(a.v, b.v)}; }
inline Vec Fma(Vec a, Vec b, Vec c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }  // a * b + c
// p[0..3], each to be broadcast by Lane: one load instead of four.
struct Quad {
  __m256 v;
};
inline Quad LoadQuad(const float* p) {
  Quad q = {_mm256_broadcast_ps(reinterpret_cast<const __m128*>(p))};
  __asm__("" : "+x"(q.v));  // keeps the compiler from broadcasting each element from memory
  return q;
}
template <int kLane>
inline Vec Lane(Quad q) {
  return {_mm256_permute_ps(q.v, kLane * 0x55)};
}
// No vector is wider than its lower lanes (see vec_avx512.h).
inline Vec LoadLowerMask(const float* p, Mask m) { return LoadMask(p, m); }
inline Vec EvensLower(Vec a, Vec b) { return Evens(a, b); }
inline Vec OddsLower(Vec a, Vec b) { return Odds(a, b); }
inline Vec ShiftInLower(Vec a, float next) { return ShiftIn(a, next); }
inline Vec LoadLower(const float* p) { return LoadU(p); }
inline Vec FmaLower(Vec a, Vec b, Vec c) { return Fma(a, b, c); }
inline Vec Fnma(Vec a, Vec b, Vec c) { return {_mm256_fnmadd_ps(a.v, b.v, c.v)}; }  // c - a * b
// Min and Max return b when either operand is NaN.
inline Vec Min(Vec a, Vec b) { return {_mm256_min_ps(a.v, b.v)}; }
inline Vec Max(Vec a, Vec b) { return {_mm256_max_ps(a.v, b.v)}; }
inline Vec Sqrt(Vec a) { return {_mm256_sqrt_ps(a.v)}; }
inline Vec Abs(Vec a) { return {_mm256_andnot_ps(_mm256_set1_ps(-0.0f), a.v)}; }
inline Vec Neg(Vec a) { return {_mm256_xor_ps(_mm256_set1_ps(-0.0f), a.v)}; }
inline Vec Floor(Vec a) { return {_mm256_floor_ps(a.v)}; }
inline Vec Ceil(Vec a) { return {_mm256_ceil_ps(a.v)}; }
inline Vec Round(Vec a) {  // half to even
  return {_mm256_round_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}

// Of the bits.
inline Vec Or(Vec a, Vec b) { return {_mm256_or_ps(a.v, b.v)}; }

inline Mask Less(Vec a, Vec b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_LT_OQ)}; }
inline Mask LessEqual(Vec a, Vec b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_LE_OQ)}; }
inline Mask Equal(Vec a, Vec b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_EQ_OQ)}; }
inline Mask IsNan(Vec a) { return {_mm256_cmp_ps(a.v, a.v, _CMP_UNORD_Q)}; }
inline Vec Select(Mask m, Vec yes, Vec no) { return {_mm256_blendv_ps(no.v, yes.v, m.m)}; }

// a * 2^n for an integral n (as float) in [-252, 254]: two steps keep each factor normal.
inline Vec ScaleByPow2(Vec a, Vec n) {
  const __m256i whole = _mm256_cvtps_epi32(n.v);
  const __m256i half = _mm256_srai_epi32(whole, 1);
  const __m256i bias = _mm256_set1_epi32(127);
  const __m256 lo = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(half, bias), 23));
  const __m256 hi = _mm256_castsi256_ps(
      _mm256_slli_epi32(_mm256_add_epi32(_mm256_sub_epi32(whole, half), bias), 23));
  return {_mm256_mul_ps(_mm256_mul_ps(a.v, lo), hi)};
}
// x = mantissa * 2^exponent with mantissa in [1, 2); x positive and normal.
inline Vec Exponent(Vec x) {
  const __m256i bits = _mm256_srli_epi32(_mm256_castps_si256(x.v), 23);
  return {_mm256_cvtepi32_ps(_mm256_sub_epi32(bits, _mm256_set1_epi32(127)))};
}
inline Vec Mantissa(Vec x) {
  const __m256i fraction =
      _mm256_and_si256(_mm256_castps_si256(x.v), _mm256_set1_epi32(0x007fffff));
  return {_mm256_castsi256_ps(_mm256_or_si256(fraction, _mm256_set1_epi32(0x3f800000)))};
}

inline float ReduceAdd(Vec a) {
  __m128 x = _mm_add_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
  x = _mm_add_ps(x, _mm_movehl_ps(x, x));
  x = _mm_add_ss(x, _mm_movehdup_ps(x));
  return _mm_cvtss_f32(x);
}
inline float ReduceMax(Vec a) {
  __m128 x = _mm_max_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
  x = _mm_max_ps(x, _mm_movehl_ps(x, x));
  x = _mm_max_ss(x, _mm_movehdup_ps(x));
  return _mm_cvtss_f32(x);
}
inline float ReduceMin(Vec a) {
  __m128 x = _mm_min_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
  x = _mm_min_ps(x, _mm_movehl_ps(x, x));
  x = _mm_min_ss(x, _mm_movehdup_ps(x));
  return _mm_cvtss_f32(x);
}

}  // namespace avx2
}  // namespace sparsert
