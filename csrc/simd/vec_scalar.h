// Vec in plain C++: 4 floats, for every machine. Compilers may vectorise it as they like.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

// (see vec_neon.h)
#define SRT_VEC_ISA scalar

namespace sparsert {
namespace scalar {

struct Vec {
  static constexpr int kLanes = 4;
  static constexpr int kRegisters = 16;
  static constexpr int kLowerLanes = 0;  // (see vec_avx512.h)
  static constexpr bool kSlowPartialStores = true;
  static constexpr bool kShortCode = true;  // (see vec_neon.h)
  float v[4];
};

struct Mask {
  bool m[4];
};

// (see vec_avx2.h) There is no portable way to say so.
struct DenormalsAreZero {
  DenormalsAreZero() {}
};

#define SRT_EACH for (int i = 0; i < 4; ++i)

inline Vec LoadU(const float* p) {
  Vec r;
  memcpy(r.v, p, sizeof(r.v));
  return r;
}
inline Vec Load(const float* p) { return LoadU(p); }
inline void StoreU(float* p, Vec a) { memcpy(p, a.v, sizeof(a.v)); }
inline void Store(float* p, Vec a) { StoreU(p, a); }
inline Vec Set1(float x) { return {{x, x, x, x}}; }
inline void KeepInRegister(Vec*) {}
inline Vec Zero() { return Set1(0.0f); }

inline Mask FirstN(int n) { return {{n > 0, n > 1, n > 2, n > 3}}; }
inline Mask MaskFromBits(uint32_t bits) {
  return {{(bits & 1) != 0, (bits & 2) != 0, (bits & 4) != 0, (bits & 8) != 0}};
}
// Lanes outside the mask read nothing and give 0.
inline Vec LoadMask(const float* p, Mask m) {
  Vec r;
  SRT_EACH r.v[i] = m.m[i] ? p[i] : 0.0f;
  return r;
}
// (see vec_neon.h)
inline Vec LoadMaskInline(const float* p, Mask m) { return LoadMask(p, m); }
inline void StoreMask(float* p, Mask m, Vec a) {
  SRT_EACH {
    if (m.m[i]) p[i] = a.v[i];
  }
}
// The first n lanes, of which `first_n` is the mask.
inline void StoreFirst(float* p, int, Mask first_n, Vec a) { StoreMask(p, first_n, a); }
// base[index[lane]]; lanes outside the mask read nothing and give 0.
inline Vec GatherMask(const float* base, const int32_t* index, Mask m) {
  Vec r;
  SRT_EACH r.v[i] = m.m[i] ? base[index[i]] : 0.0f;
  return r;
}
struct PickIndex {  // (see vec_avx512.h)
  const int32_t* p;
};
inline PickIndex LoadPickIndex(const int32_t* index) { return {index}; }
inline Vec LoadPicked(const float* p, PickIndex i, Mask m) { return GatherMask(p, i.p, m); }
// (see vec_avx512.h)
inline Vec PickLanes(Vec a, const int32_t* index, int32_t first) {
  Vec r;
  SRT_EACH r.v[i] = a.v[(index[i] - first) & (Vec::kLanes - 1)];
  return r;
}
// base[index[lane]] with 16-bit indices.
inline Vec GatherU16(const float* base, const uint16_t* index) {
  Vec r;
  SRT_EACH r.v[i] = base[index[i]];
  return r;
}
// (see vec_avx512.h)
template <int kParts>
inline Vec SetParts(const float* base, const uint16_t* index) {
  Vec r;
  SRT_EACH r.v[i] = base[index[i * kParts / Vec::kLanes]];
  return r;
}
using Stride2Mask = Mask;  // (see vec_avx512.h)
inline Stride2Mask SpreadMask(Mask m) { return m; }
// (see vec_avx512.h); reads no more than it needs.
inline Vec Spread(const float* p, uint32_t bits) {
  Vec r;
  SRT_EACH r.v[i] = (bits >> i & 1) != 0 ? *p++ : 0.0f;
  return r;
}
// Lanes 0, 2, 4, ... and 1, 3, 5, ... of a followed by b.
inline Vec Evens(Vec a, Vec b) { return {{a.v[0], a.v[2], b.v[0], b.v[2]}}; }
inline Vec Odds(Vec a, Vec b) { return {{a.v[1], a.v[3], b.v[1], b.v[3]}}; }
// a0 b0 a1 b1 ...: of the lower half of the lanes, and of the upper half.
inline Vec ZipLower(Vec a, Vec b) { return {{a.v[0], b.v[0], a.v[1], b.v[1]}}; }
inline Vec ZipUpper(Vec a, Vec b) { return {{a.v[2], b.v[2], a.v[3], b.v[3]}}; }
// The lanes of a but the first one, then `next`.
inline Vec ShiftIn(Vec a, float next) { return {{a.v[1], a.v[2], a.v[3], next}}; }
// p[0], p[2], p[4], p[6] where the mask is set, else 0.
inline Vec LoadStride2Mask(const float* p, Mask m) {
  Vec r;
  SRT_EACH r.v[i] = m.m[i] ? p[2 * i] : 0.0f;
  return r;
}

#define SRT_MAP1(name, expr)  \
  inline Vec name(Vec a) {    \
    Vec r;                    \
    SRT_EACH r.v[i] = (expr); \
    return r;                 \
  }
#define SRT_MAP2(name, expr)      \
  inline Vec name(Vec a, Vec b) { \
    Vec r;                        \
    SRT_EACH r.v[i] = (expr);     \
    return r;                     \
  }
#define SRT_COMPARE(name, expr)    \
  inline Mask name(Vec a, Vec b) { \
    Mask r;                        \
    SRT_EACH r.m[i] = (expr);      \
    return r;                      \
  }

SRT_MAP2(Add, a.v[i] + b.v[i])
SRT_MAP2(Sub, a.v[i] - b.v[i])
SRT_MAP2(Mul, a.v[i] * b.v[i])
SRT_MAP2(Div, a.v[i] / b.v[i])
// Min and Max return b when either operand is NaN.
SRT_MAP2(Min, a.v[i] < b.v[i] ? a.v[i] : b.v[i])
SRT_MAP2(Max, a.v[i] > b.v[i] ? a.v[i] : b.v[i])
SRT_MAP1(Sqrt, std::sqrt(a.v[i]))
SRT_MAP1(Abs, std::fabs(a.v[i]))
SRT_MAP1(Neg, -a.v[i])
SRT_MAP1(Floor, std::floor(a.v[i]))
SRT_MAP1(Ceil, std::ceil(a.v[i]))
SRT_MAP1(Round, std::nearbyint(a.v[i]))  // half to even
SRT_COMPARE(Less, a.v[i] < b.v[i])
SRT_COMPARE(LessEqual, a.v[i] <= b.v[i])
SRT_COMPARE(Equal, a.v[i] == b.v[i])

inline Vec Fma(Vec a, Vec b, Vec c) {  // a * b + c, rounded twice
  Vec r;
  SRT_EACH r.v[i] = a.v[i] * b.v[i] + c.v[i];
  return r;
}
struct Quad {
  const float* p;
};
inline Quad LoadQuad(const float* p) { return {p}; }
template <int kLane>
inline Vec Lane(Quad q) {
  return Set1(q.p[kLane]);
}
// No vector is wider than its lower lanes (see vec_avx512.h).
inline Vec LoadLowerMask(const float* p, Mask m) { return LoadMask(p, m); }
inline Vec EvensLower(Vec a, Vec b) { return Evens(a, b); }
inline Vec OddsLower(Vec a, Vec b) { return Odds(a, b); }
inline Vec ShiftInLower(Vec a, float next) { return ShiftIn(a, next); }
inline Vec LoadLower(const float* p) { return LoadU(p); }
inline Vec FmaLower(Vec a, Vec b, Vec c) { return Fma(a, b, c); }
inline Vec Fnma(Vec a, Vec b, Vec c) {  // c - a * b
  Vec r;
  SRT_EACH r.v[i] = c.v[i] - a.v[i] * b.v[i];
  return r;
}
// Of the bits.
inline Vec Or(Vec a, Vec b) {
  uint32_t x[4];
  uint32_t y[4];
  memcpy(x, a.v, sizeof(x));
  memcpy(y, b.v, sizeof(y));
  SRT_EACH x[i] |= y[i];
  memcpy(a.v, x, sizeof(x));
  return a;
}
inline Mask IsNan(Vec a) {
  Mask r;
  SRT_EACH r.m[i] = a.v[i] != a.v[i];
  return r;
}
inline Vec Select(Mask m, Vec yes, Vec no) {
  Vec r;
  SRT_EACH r.v[i] = m.m[i] ? yes.v[i] : no.v[i];
  return r;
}

// a * 2^n for an integral n (as float) in [-252, 254]: two steps keep each factor normal.
inline Vec ScaleByPow2(Vec a, Vec n) {
  Vec r;
  SRT_EACH {
    const float shifted = n.v[i] + 12582912.0f;  // 1.5 * 2^23: n sits in the low bits
    int32_t whole;
    memcpy(&whole, &shifted, 4);
    whole -= 0x4b400000;
    whole = whole < -252 ? -252 : (whole > 254 ? 254 : whole);
    const int32_t half = whole >> 1;
    const uint32_t lo_bits = static_cast<uint32_t>(half + 127) << 23;
    const uint32_t hi_bits = static_cast<uint32_t>(whole - half + 127) << 23;
    float lo;
    float hi;
    memcpy(&lo, &lo_bits, 4);
    memcpy(&hi, &hi_bits, 4);
    r.v[i] = a.v[i] * lo * hi;
  }
  return r;
}
// x = mantissa * 2^exponent with mantissa in [1, 2); x positive and normal.
inline Vec Exponent(Vec x) {
  Vec r;
  SRT_EACH {
    uint32_t bits;
    memcpy(&bits, &x.v[i], 4);
    r.v[i] = static_cast<float>(static_cast<int>((bits >> 23) & 255) - 127);
  }
  return r;
}
inline Vec Mantissa(Vec x) {
  Vec r;
  SRT_EACH {
    uint32_t bits;
    memcpy(&bits, &x.v[i], 4);
    bits = (bits & 0x007fffffu) | 0x3f800000u;
    memcpy(&r.v[i], &bits, 4);
  }
  return r;
}

inline float ReduceAdd(Vec a) { return (a.v[0] + a.v[2]) + (a.v[1] + a.v[3]); }
inline float ReduceMax(Vec a) {
  float r = a.v[0];
  SRT_EACH r = a.v[i] > r ? a.v[i] : r;
  return r;
}
inline float ReduceMin(Vec a) {
  float r = a.v[0];
  SRT_EACH r = a.v[i] < r ? a.v[i] : r;
  return r;
}

#undef SRT_MAP1
#undef SRT_MAP2
#undef SRT_COMPARE
#undef SRT_EACH

}  // namespace scalar
}  // namespace sparsert
