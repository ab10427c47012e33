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
// Four signed weights of each lane.
struct ByteWeights {
  int8_t v[16];
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
inline ByteVec ToBytes(Vec bytes) { return LoadBytes(bytes.v); }
inline ByteWeights LoadLaneWeights(const float* p) {
  ByteWeights r;
  memcpy(r.v, p, sizeof(r.v));
  return r;
}
inline ByteWeights ToWeights(Vec bytes) { return LoadLaneWeights(bytes.v); }
inline ByteWeights LoadWeights(const float* p) { return LoadLaneWeights(Set1(*p).v); }
// acc + the sum of the four products of each lane, exactly.
inline IntVec Dot(ByteVec x, ByteWeights w, IntVec acc) {
  for (int i = 0; i < 16; ++i) acc.v[i / 4] += x.v[i] * w.v[i];
  return acc;
}
inline IntVec AddInts(IntVec a, IntVec b) {
  for (int i = 0; i < 4; ++i) a.v[i] += b.v[i];
  return a;
}
inline Vec ToFloats(IntVec a) {
  Vec r;
  for (int i = 0; i < 4; ++i) r.v[i] = static_cast<float>(a.v[i]);
  return r;
}
// What a rounded number becomes: clamp(number + zero, low, high). `order`, from the lowest byte of
// a lane on: four times the number of the vector that it comes from.
constexpr uint32_t kByteOrder = 0x0c080400u;
struct ByteRange {
  int32_t zero, low, high;
  uint32_t order;
};
inline ByteRange MakeByteRange(int32_t zero, int32_t low, int32_t high,
                               uint32_t order = kByteOrder) {
  return {zero, low, high, order};
}
inline uint8_t RoundToByte(float a, const ByteRange& range) {
  const auto whole = static_cast<int64_t>(std::nearbyint(a)) + range.zero;
  const int64_t low = whole < range.low ? range.low : whole;
  return static_cast<uint8_t>(low > range.high ? range.high : low);
}
// Four bytes per lane, one of each vector, rounded half to even; their magnitudes are below 2^31.
// kPlain: the range's zero point and low are 0, high is 255.
template <bool kPlain = false>
inline Vec RoundToBytes(Vec a, Vec b, Vec c, Vec d, ByteRange range) {
  const Vec* rows[4] = {&a, &b, &c, &d};
  uint8_t bytes[16];
  for (int i = 0; i < 16; ++i) {
    const uint32_t from = range.order >> (8 * (i % 4)) & 255u;
    bytes[i] = RoundToByte(rows[from / 4]->v[i / 4], range);
  }
  Vec r;
  memcpy(r.v, bytes, sizeof(bytes));
  return r;
}
// One byte of each lane, less a zero point, as floats.
struct CentredByte {
  int n;
  int32_t zero;
};
inline CentredByte MakeCentredByte(int n, int32_t zero) { return {n, zero}; }
inline Vec Centre(Vec bytes, CentredByte byte) {
  uint32_t bits[4];
  memcpy(bits, bytes.v, sizeof(bits));
  Vec r;
  for (int i = 0; i < 4; ++i) {
    r.v[i] = static_cast<float>(static_cast<int32_t>(bits[i] >> (8 * byte.n) & 255u) - byte.zero);
  }
  return r;
}
// p[0..3] in every four lanes.
inline Vec RepeatFour(const float* p) { return LoadU(p); }
inline IntVec ToInts(Vec bits) {
  IntVec r;
  memcpy(r.v, bits.v, sizeof(r.v));
  return r;
}
// Byte c of a, b, c and d side by side for each channel c of a column. Four successive columns
// begin at each fourth lane: out[j] holds the j-th of them, a lane for each channel.
inline void TransposeTaps(Vec a, Vec b, Vec c, Vec d, Vec (&out)[4]) {
  uint8_t taps[4][16];
  memcpy(taps[0], a.v, 16);
  memcpy(taps[1], b.v, 16);
  memcpy(taps[2], c.v, 16);
  memcpy(taps[3], d.v, 16);
  for (int j = 0; j < 4; ++j) {
    uint8_t bytes[16];
    for (int i = 0; i < 16; ++i) bytes[i] = taps[i % 4][4 * j + i / 4];
    memcpy(out[j].v, bytes, sizeof(bytes));
  }
}
// RoundToBytes() of columns in the order of TransposeTaps(): their bytes in a row.
inline Vec RoundColumns(Vec a, Vec b, Vec c, Vec d, ByteRange range) {
  const Vec* columns[4] = {&a, &b, &c, &d};
  uint8_t bytes[16];
  for (int i = 0; i < 16; ++i) bytes[i] = RoundToByte(columns[i / 4]->v[i % 4], range);
  Vec r;
  memcpy(r.v, bytes, sizeof(bytes));
  return r;
}
inline Vec MaxBytes(Vec a, Vec b) {
  uint8_t x[16];
  uint8_t y[16];
  memcpy(x, a.v, sizeof(x));
  memcpy(y, b.v, sizeof(y));
  for (int i = 0; i < 16; ++i) x[i] = x[i] > y[i] ? x[i] : y[i];
  memcpy(a.v, x, sizeof(x));
  return a;
}

// Each byte's entry of a table of 256.
struct ByteTable {
  const uint8_t* entry;
};
inline ByteTable LoadTable(const uint8_t* p) { return {p}; }
inline Vec LookUp(const ByteTable& table, Vec bytes) {
  uint8_t x[16];
  memcpy(x, bytes.v, sizeof(x));
  for (uint8_t& byte : x) byte = table.entry[byte];
  memcpy(bytes.v, x, sizeof(x));
  return bytes;
}
// Of every four lanes: byte i of lane d becomes byte d of lane i.
inline Vec TurnGroups(Vec bytes) {
  uint8_t x[16];
  uint8_t y[16];
  memcpy(x, bytes.v, sizeof(x));
  for (int i = 0; i < 16; ++i) y[i] = x[i % 4 * 4 + i / 4];
  memcpy(bytes.v, y, sizeof(y));
  return bytes;
}

}  // namespace SRT_ISA
}  // namespace sparsert

#include "simd/dot_defaults.h"
