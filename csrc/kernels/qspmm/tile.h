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

// How four rows become bytes.
struct Requantise {
  Vec scale[4];
  Vec low, high;    // less the zero point: a clamp before rounding gives what one behind it would
  Vec zero;
};

SRT_INLINE Vec Clamp(Vec a, Vec low, Vec high) { return Min(Max(a, low), high); }

// q - zero, as a whole number, of one row and vector.
SRT_INLINE Vec Centred(const Requantise& q, int row, IntVec sum) {
  return Round(Clamp(Mul(ToFloats(sum), q.scale[row]), q.low, q.high));
}

template <int r>
SRT_INLINE Vec AddResidual(const QspmmArgs& a, Vec centred, Vec r_bytes) {
  const Vec residual = Sub(ByteToFloats<r>(r_bytes), Set1(static_cast<float>(a.r_zero)));
  const Vec z =
      Add(Mul(centred, Set1(a.sum_scale)), Mul(residual, Set1(a.r_scale)));
  return Round(Clamp(z, Set1(static_cast<float>(a.out_low - a.out_zero)),
                     Set1(static_cast<float>(a.out_high - a.out_zero))));
}

// Rows row .. row + 3, of which `rows` exist; the others become the zero point.
template <int NV>
SRT_INLINE void EndByteRows(const QspmmTile& t, int row, int rows, const IntVec (&acc)[4][NV]) {
  const QspmmArgs& a = *t.args;
  Requantise q;
#pragma GCC unroll 4
  for (int r = 0; r < 4; ++r) q.scale[r] = Set1(r < rows ? t.scale[row + r] : 0.0f);
  q.low = Set1(static_cast<float>(a.low - a.zero));
  q.high = Set1(static_cast<float>(a.high - a.zero));
  float* y = t.y + row / 4 * t.y_row;
  if (t.r == nullptr) {
    q.zero = Set1(static_cast<float>(a.zero));
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v) {
      IntVec bytes[4];
#pragma GCC unroll 4
      for (int r = 0; r < 4; ++r) bytes[r] = ToInts(Add(Centred(q, r, acc[r][v]), q.zero));
      StoreColumn<NV>(t, y, v, JoinBytes(bytes[0], bytes[1], bytes[2], bytes[3]));
    }
    return;
  }
  const float* residual = t.r + row / 4 * t.r_row;
  q.zero = Set1(static_cast<float>(a.out_zero));
#pragma GCC unroll 8
  for (int v = 0; v < NV; ++v) {
    const Vec r = LoadColumn<NV>(t, residual, v);
    StoreColumn<NV>(
        t, y, v,
        JoinBytes(ToInts(Add(AddResidual<0>(a, Centred(q, 0, acc[0][v]), r), q.zero)),
                  ToInts(Add(AddResidual<1>(a, Centred(q, 1, acc[1][v]), r), q.zero)),
                  ToInts(Add(AddResidual<2>(a, Centred(q, 2, acc[2][v]), r), q.zero)),
                  ToInts(Add(AddResidual<3>(a, Centred(q, 3, acc[3][v]), r), q.zero))));
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
