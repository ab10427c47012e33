// Products of groups of four bytes in plain C++: the contract that the other dot_*.h files keep.
// Include after vec_scalar.h, with SRT_ISA defined.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

namespace sparsert {
namespace SRT_ISA {

// 32-bit integers, as many as Vec has floats.
struct IntVec {
  int32_t v[4];
};
// Each lane's four activations, as unsigned bytes less kByteOffset.
struct ByteVec {
  uint8_t v[16];
};
// Four signed weights, the same in each lane.
struct ByteWeights {
  int8_t v[4];
};
constexpr int kByteOffset = 0;

inline IntVec SetInts(int32_t a) { return {{a, a, a, a}}; }
inline IntVec LoadInts(const int32_t* p) {  // aligned as Load
  IntVec r;
  memcpy(r.v, p, sizeof(r.v));
  return r;
}
inline void StoreInts(int32_t* p, IntVec a) { memcpy(p, a.v, sizeof(a.v)); }
// Four unsigned bytes of each lane stand where a float of it would.
inline ByteVec LoadBytes(const float* p) {
  ByteVec r;
  memcpy(r.v, p, sizeof(r.v));
  return r;
}
inline ByteWeights LoadWeights(const float* p) {
  ByteWeights r;
  memcpy(r.v, p, sizeof(r.v));
  return r;
}
// acc + the sum of the four products of each lane, exactly.
inline IntVec Dot(ByteVec x, ByteWeights w, IntVec acc) {
  for (int i = 0; i < 16; ++i) acc.v[i / 4] += x.v[i] * w.v[i % 4];
  return acc;
}
inline Vec ToFloats(IntVec a) {
  Vec r;
  for (int i = 0; i < 4; ++i) r.v[i] = static_cast<float>(a.v[i]);
  return r;
}
inline IntVec ToInts(Vec a) {  // half to even; |a| < 2^31
  IntVec r;
  for (int i = 0; i < 4; ++i) r.v[i] = static_cast<int32_t>(std::nearbyint(a.v[i]));
  return r;
}
// Four bytes per lane from four vectors of 0..255, as the bits of floats.
inline Vec JoinBytes(IntVec a, IntVec b, IntVec c, IntVec d) {
  Vec r;
  uint32_t bits[4];
  for (int i = 0; i < 4; ++i) {
    bits[i] = static_cast<uint32_t>(a.v[i]) | static_cast<uint32_t>(b.v[i]) << 8 |
              static_cast<uint32_t>(c.v[i]) << 16 | static_cast<uint32_t>(d.v[i]) << 24;
  }
  memcpy(r.v, bits, sizeof(bits));
  return r;
}
// Byte `n` of each lane.
template <int n>
inline Vec ByteToFloats(Vec bytes) {
  uint32_t bits[4];
  memcpy(bits, bytes.v, sizeof(bits));
  Vec r;
  for (int i = 0; i < 4; ++i) r.v[i] = static_cast<float>(bits[i] >> (8 * n) & 255u);
  return r;
}

}  // namespace SRT_ISA
}  // namespace sparsert
