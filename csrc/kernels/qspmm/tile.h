// What the qspmm micro-kernels share: one tile's addresses, and how a panel begins and ends.
// Included once per instruction set, after its vec_*.h and dot_*.h, with SRT_ISA defined.
#pragma once

#include "base/arch.h"
#include "kernels/qspmm/qspmm.h"
#include "simd/vec_math.h"

namespace sparsert {
namespace SRT_ISA {
namespace {

// One tile of columns during one block of K. Pointers to the group's first row at the tile's first
// column; strides in groups of four bytes, or in floats.
struct QspmmTile {
  const QspmmArgs* args;
  const float* x;  // K-row 0 of the block
  int64_t x_row;
  float* y;
  int64_t y_row;
  const float* r;  // nullptr: no residual
  int64_t r_row;
  int32_t* sums;  // [rows][NV * lanes] partial sums between blocks, private to this thread
  const int32_t* start;
  const float* scale;
  const float* bias;  // nullptr: zeros
  Mask tail;          // valid lanes of the last vector
  bool partial;       // tail is not full
  bool stream;        // fetch weights ahead: they lie beyond L1, or, read once, beyond L2
  bool first;         // this block starts the sums
  bool last;          // this block ends them
  int block;
  int panel_begin;
  int panel_end;
};

template <int NV>
SRT_INLINE Vec LoadColumn(const QspmmTile& t, const float* p, int v) {
  if (v == NV - 1 && t.partial) return LoadMask(p + v * Vec::kLanes, t.tail);
  return LoadU(p + v * Vec::kLanes);
}

template <int NV>
SRT_INLINE void StoreColumn(const QspmmTile& t, float* p, int v, Vec a) {
  if (v == NV - 1 && t.partial) {
    StoreMask(p + v * Vec::kLanes, t.tail, a);
  } else {
    StoreU(p + v * Vec::kLanes, a);
  }
}

// The sums of `row` before this block.
template <int NV>
SRT_INLINE void BeginRow(const QspmmTile& t, int row, IntVec (&acc)[NV]) {
  if (t.first) {
    const IntVec start = SetInts(t.start[row]);
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v) acc[v] = start;
  } else {
    const int32_t* sums = t.sums + row * (NV * Vec::kLanes);
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v) acc[v] = LoadInts(sums + v * Vec::kLanes);
  }
}

template <int NV>
SRT_INLINE void KeepSums(const QspmmTile& t, int row, const IntVec (&acc)[NV]) {
  int32_t* sums = t.sums + row * (NV * Vec::kLanes);
#pragma GCC unroll 8
  for (int v = 0; v < NV; ++v) StoreInts(sums + v * Vec::kLanes, acc[v]);
}

template <int NV>
SRT_INLINE void EndFloatRow(const QspmmTile& t, int row, const IntVec (&acc)[NV]) {
  const Vec scale = Set1(t.scale[row]);
  const Vec bias = t.bias != nullptr ? Set1(t.bias[row]) : Zero();
  Vec z[NV];
#pragma GCC unroll 8
  for (int v = 0; v < NV; ++v) z[v] = Add(Mul(ToFloats(acc[v]), scale), bias);
  if (t.r != nullptr) {
    const float* r = t.r + row * t.r_row;
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v) z[v] = Add(z[v], LoadColumn<NV>(t, r, v));
  }
  if (t.args->product.act.fn != UnaryFn::kNone) ApplyActivation(t.args->product.act, z, NV);
  float* y = t.y + row * t.y_row;
#pragma GCC unroll 8
  for (int v = 0; v < NV; ++v) StoreColumn<NV>(t, y, v, z[v]);
}

SRT_INLINE Vec Clamp(Vec a, Vec low, Vec high) { return Min(Max(a, low), high); }

// How four rows and a residual become bytes.
struct Residual {
  Vec low, high;  // of the sum's byte, less its zero point
  Vec sum_scale;
  Vec centre;  // of the residual's bytes
  Vec scale;
};

template <int r>
SRT_INLINE Vec AddResidual(const Residual& a, Vec z, Vec bytes) {
  const Vec centred = Round(Clamp(z, a.low, a.high));
  return Add(Mul(centred, a.sum_scale), Mul(CentredByte<r>(bytes, a.centre), a.scale));
}

// Rows row .. row + 3, of which `rows` exist; the others become the zero point, or with a residual
// anything.
template <int NV>
SRT_INLINE void EndByteRows(const QspmmTile& t, int row, int rows, const IntVec (&acc)[4][NV]) {
  const QspmmArgs& a = *t.args;
  Vec scale[4];
#pragma GCC unroll 4
  for (int r = 0; r < 4; ++r) scale[r] = Set1(r < rows ? t.scale[row + r] : 0.0f);
  float* y = t.y + row / 4 * t.y_row;
  if (t.r == nullptr) {
    const ByteRange range = MakeByteRange(a.zero, a.low, a.high);
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v) {
      Vec z[4];
#pragma GCC unroll 4
      for (int r = 0; r < 4; ++r) z[r] = Mul(ToFloats(acc[r][v]), scale[r]);
      StoreColumn<NV>(t, y, v, RoundToBytes(z[0], z[1], z[2], z[3], range));
    }
    return;
  }
  const float* r_bytes = t.r + row / 4 * t.r_row;
  const ByteRange range = MakeByteRange(a.out_zero, a.out_low, a.out_high);
  const Residual add = {Set1(static_cast<float>(a.low - a.zero)),
                        Set1(static_cast<float>(a.high - a.zero)), Set1(a.sum_scale),
                        MakeCentre(a.r_zero), Set1(a.r_scale)};
#pragma GCC unroll 8
  for (int v = 0; v < NV; ++v) {
    const Vec bytes = LoadColumn<NV>(t, r_bytes, v);
    Vec z[4];
#pragma GCC unroll 4
    for (int r = 0; r < 4; ++r) z[r] = Mul(ToFloats(acc[r][v]), scale[r]);
    StoreColumn<NV>(
        t, y, v,
        RoundToBytes(AddResidual<0>(add, z[0], bytes), AddResidual<1>(add, z[1], bytes),
                     AddResidual<2>(add, z[2], bytes), AddResidual<3>(add, z[3], bytes), range));
  }
}

// Four rows from `row` on, of which `rows` exist.
template <int NV>
SRT_INLINE void BeginPanel(const QspmmTile& t, int row, int rows, IntVec (&acc)[4][NV]) {
#pragma GCC unroll 4
  for (int r = 0; r < 4; ++r) {
    if (r < rows) {
      BeginRow<NV>(t, row + r, acc[r]);
    } else {
#pragma GCC unroll 8
      for (int v = 0; v < NV; ++v) acc[r][v] = SetInts(0);
    }
  }
}

template <int NV>
SRT_INLINE void EndPanel(const QspmmTile& t, int row, int rows, const IntVec (&acc)[4][NV]) {
  if (t.last && !t.args->f32_output) return EndByteRows<NV>(t, row, rows, acc);
#pragma GCC unroll 4
  for (int r = 0; r < 4; ++r) {
    if (r >= rows) continue;
    if (t.last) {
      EndFloatRow<NV>(t, row + r, acc[r]);
    } else {
      KeepSums<NV>(t, row + r, acc[r]);
    }
  }
}

}  // namespace
}  // namespace SRT_ISA
}  // namespace sparsert
