// What the qspmm micro-kernels share: one tile's addresses, and how a panel begins and ends.
// Included once per instruction set, after its vec_*.h and dot_*.h, with SRT_ISA defined.
#pragma once

#include "base/arch.h"
#include "kernels/qspmm/qspmm.h"
#include "kernels/quantize/elementwise.h"

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
  uint8_t fill;       // X in the padding
  Mask tail;          // valid lanes of the last vector
  bool partial;       // tail is not full
  bool stream;        // fetch weights ahead: they lie beyond L1, or, read once, beyond L2
  bool first;         // this block starts the sums
  bool last;          // this block ends them
  int block;
  int panel_begin;
  int panel_end;
};

// A work item: a tile of columns, or all of them, of one image and group, and the panels of one row
// split.
struct QspmmItem {
  QspmmTile tile;  // without stream, first, last and block
  const PackedMatrix* weights;
  int index;  // of the tile
  int vecs;
  const float* x;  // of the group; where X is read directly, at the tile's first column
};

SRT_INLINE QspmmItem FindItem(const QspmmArgs& q, void* const* io, int64_t item) {
  const SpmmArgs& a = q.product;
  const int tiles = SpmmItemTiles(a);
  const int64_t parts = static_cast<int64_t>(tiles) * a.splits;
  const int part = static_cast<int>(item % parts);
  const int split = a.by_rows ? part / tiles : part % a.splits;
  const int group = static_cast<int>(item / parts % a.groups);
  const int64_t image = item / parts / a.groups;
  QspmmItem found;
  found.weights = &a.weights[group];
  found.index = a.by_rows ? part % tiles : part / a.splits;
  const int64_t vec_begin = static_cast<int64_t>(found.index) * a.vecs / tiles;
  found.vecs = static_cast<int>((found.index + 1LL) * a.vecs / tiles - vec_begin);
  const int64_t column = vec_begin * Vec::kLanes;
  found.x = static_cast<const float*>(io[0]) + image * a.x_image + group * a.x_group +
            (a.direct ? column : 0);

  QspmmTile& t = found.tile;
  t.args = &q;
  const int64_t left = a.columns - column;
  t.partial = left < static_cast<int64_t>(found.vecs) * Vec::kLanes;
  t.tail =
      FirstN(t.partial ? static_cast<int>(left - (found.vecs - 1) * Vec::kLanes) : Vec::kLanes);
  t.y = static_cast<float*>(io[2]) + image * a.y_image + group * a.y_group + column;
  t.y_row = a.y_row;
  t.r = io[1] == nullptr
            ? nullptr
            : static_cast<const float*>(io[1]) + image * a.r_image + group * a.r_group + column;
  t.r_row = a.r_row;
  // The last group may have fewer rows than the others.
  const int64_t row = static_cast<int64_t>(group) * a.weights[0].rows;
  const QspmmRows rows = FindQspmmRows(q, a.weights[0].rows * static_cast<int64_t>(a.groups),
                                       q.at_run ? io[3] : nullptr);
  t.fill = rows.fill;
  t.start = rows.start + row;
  t.scale = rows.scale + row;
  t.bias = a.bias == nullptr ? nullptr : a.bias + row;
  const int32_t* bounds = a.split_panels + static_cast<int64_t>(group) * (a.splits + 1);
  t.panel_begin = bounds[split];
  t.panel_end = bounds[split + 1];
  return found;
}

// Vector v of a tile of `nv`.
SRT_INLINE Vec LoadColumn(const QspmmTile& t, const float* p, int v, int nv) {
  if (v == nv - 1 && t.partial) return LoadMask(p + v * Vec::kLanes, t.tail);
  return LoadU(p + v * Vec::kLanes);
}

// Vector v of NV of a K-row, and its products. With kHalf, the last one's upper half is not used.
template <int NV, bool kHalf>
SRT_INLINE ByteVec LoadX(const float* x, int v) {
  if constexpr (kHasHalfDots) {
    if (kHalf && v == NV - 1) return LoadHalfBytes(x + v * Vec::kLanes);
  }
  return LoadBytes(x + v * Vec::kLanes);
}
template <int NV, bool kHalf>
SRT_INLINE IntVec DotX(ByteVec x, ByteWeights w, IntVec acc, int v) {
  if constexpr (kHasHalfDots) {
    if (kHalf && v == NV - 1) return DotHalf(x, w, acc);
  }
  return Dot(x, w, acc);
}

SRT_INLINE void StoreColumn(const QspmmTile& t, float* p, int v, int nv, Vec a) {
  if (v == nv - 1 && t.partial) {
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

// NV vectors of sums of a tile of `nv`, from `first` on.
template <int NV>
SRT_INLINE void KeepSums(const QspmmTile& t, int row, const IntVec (&acc)[NV], int first, int nv) {
  int32_t* sums = t.sums + (row * nv + first) * Vec::kLanes;
#pragma GCC unroll 8
  for (int v = 0; v < NV; ++v) StoreInts(sums + v * Vec::kLanes, acc[v]);
}

template <int NV>
SRT_INLINE void EndFloatRow(const QspmmTile& t, int row, const IntVec (&acc)[NV], int first,
                            int nv) {
  const Vec scale = Set1(t.scale[row]);
  const Vec bias = t.bias != nullptr ? Set1(t.bias[row]) : Zero();
  Vec z[NV];
#pragma GCC unroll 8
  for (int v = 0; v < NV; ++v) z[v] = Add(Mul(ToFloats(acc[v]), scale), bias);
  if (t.r != nullptr) {
    const float* r = t.r + row * t.r_row;
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v) z[v] = Add(z[v], LoadColumn(t, r, first + v, nv));
  }
  if (t.args->product.act.fn != UnaryFn::kNone) ApplyActivation(t.args->product.act, z, NV);
  float* y = t.y + row * t.y_row;
#pragma GCC unroll 8
  for (int v = 0; v < NV; ++v) StoreColumn(t, y, first + v, nv, z[v]);
}

// Which of a panel's four rows each sum belongs to; rows that do not exist are counted on.
struct PanelRows {
  int of[4];
};
constexpr PanelRows kInOrder = {{0, 1, 2, 3}};

// The rows of a panel of two pairs; those that do not exist stand where a pair has none.
SRT_INLINE PanelRows RowsOf(const Csr2Pair* pair, int rows) {
  PanelRows panel;
  int missing = rows;
#pragma GCC unroll 4
  for (int r = 0; r < 4; ++r) {
    const bool exists = 2 * (r / 2) < rows && pair[r / 2].row[r % 2] != kNoRow;
    panel.of[r] = exists ? pair[r / 2].row[r % 2] : missing++;
  }
  return panel;
}

// How four rows and a residual become bytes.
struct Residual {
  Vec low, high;  // of the sum's byte, less its zero point
  Vec sum_scale;
  Vec scale;
  CentredByte byte[4];
  ScaledByte scaled[4];  // of a residual whose zero point is 0
};

template <bool kScaled>
SRT_INLINE Vec AddResidual(const Residual& a, int r, Vec z, Vec bytes) {
  const Vec sum = Mul(Round(Clamp(z, a.low, a.high)), a.sum_scale);
  if (kScaled) return AddScaledByte(sum, bytes, a.scaled[r]);
  return Add(sum, Mul(Centre(bytes, a.byte[r]), a.scale));
}

// How the rows of a panel become bytes. Plain bytes need no zero point and no limits, scaled ones
// are of a residual whose zero point is 0.
template <bool kResidual, bool kPlain, bool kScaled = false>
struct ByteEnd {
  static constexpr bool kHasResidual = kResidual;
  static constexpr bool kIsPlain = kPlain;
  static constexpr bool kIsScaled = kScaled;
  ByteRange range;
  Residual add;  // kHasResidual
};

template <bool kResidual, bool kPlain, bool kScaled = false>
SRT_INLINE ByteEnd<kResidual, kPlain, kScaled> MakeByteEnd(const QspmmArgs& a,
                                                           const PanelRows& panel) {
  uint32_t order = 0;
#pragma GCC unroll 4
  for (int r = 0; r < 4; ++r) order |= static_cast<uint32_t>(4 * r) << (8 * panel.of[r]);
  ByteEnd<kResidual, kPlain, kScaled> end;
  if (!kResidual) {
    end.range = MakeByteRange(a.zero, a.low, a.high, order);
    return end;
  }
  end.range = MakeByteRange(a.out_zero, a.out_low, a.out_high, order);
  end.add.low = Set1(static_cast<float>(a.low - a.zero));
  end.add.high = Set1(static_cast<float>(a.high - a.zero));
  end.add.sum_scale = Set1(a.sum_scale);
  end.add.scale = Set1(a.r_scale);
#pragma GCC unroll 4
  for (int r = 0; r < 4; ++r) {
    if (kScaled) {
      end.add.scaled[r] = MakeScaledByte(panel.of[r], a.r_scale);
    } else {
      end.add.byte[r] = MakeCentredByte(panel.of[r], a.r_zero);
    }
  }
  return end;
}

// Bytes of sums alone have no residual to add and may be plain: which ByteEnd a tile wants.
enum class ByteEndKind : uint8_t {
  kSums,
  kPlainSums,
  kResidual,
  kPlainResidual,
  kScaledResidual,  // plain bytes
};

SRT_INLINE ByteEndKind ByteEndOf(const QspmmTile& t) {
  const QspmmArgs& a = *t.args;
  if (t.r == nullptr) {
    const bool is_plain = a.zero == 0 && a.low == 0 && a.high == 255;
    return is_plain ? ByteEndKind::kPlainSums : ByteEndKind::kSums;
  }
  const bool is_plain = a.out_zero == 0 && a.out_low == 0 && a.out_high == 255;
  if (!is_plain) return ByteEndKind::kResidual;
  return kScalesBytesFaster && a.r_zero == 0 ? ByteEndKind::kScaledResidual
                                             : ByteEndKind::kPlainResidual;
}

// Where four rows of bytes go, and what is the same for all their columns.
struct ByteRows {
  Vec scale[4];
  float* y;
  const float* r;  // End::kHasResidual
};

template <typename End>
SRT_INLINE ByteRows MakeByteRows(const QspmmTile& t, int row, int rows, const PanelRows& panel) {
  ByteRows to;
#pragma GCC unroll 4
  for (int r = 0; r < 4; ++r) {
    to.scale[r] = Set1(panel.of[r] < rows ? t.scale[row + panel.of[r]] : 0.0f);
  }
  to.y = t.y + row / 4 * t.y_row;
  to.r = End::kHasResidual ? t.r + row / 4 * t.r_row : nullptr;
  return to;
}

// Vector v of a tile. partial: of its lanes, those of t.tail.
template <typename End>
SRT_INLINE void StoreByteColumn(const QspmmTile& t, const ByteRows& to, const End& end, int64_t v,
                                bool partial, IntVec a, IntVec b, IntVec c, IntVec d) {
  Vec z[4] = {Mul(ToFloats(a), to.scale[0]), Mul(ToFloats(b), to.scale[1]),
              Mul(ToFloats(c), to.scale[2]), Mul(ToFloats(d), to.scale[3])};
  if (End::kHasResidual) {
    const float* r = to.r + v * Vec::kLanes;
    const Vec bytes = partial ? LoadMask(r, t.tail) : LoadU(r);
#pragma GCC unroll 4
    for (int r = 0; r < 4; ++r) z[r] = AddResidual<End::kIsScaled>(end.add, r, z[r], bytes);
  }
  const Vec bytes = RoundToBytes<End::kIsPlain>(z[0], z[1], z[2], z[3], end.range);
  float* y = to.y + v * Vec::kLanes;
  if (partial) {
    StoreMask(y, t.tail, bytes);
  } else {
    StoreU(y, bytes);
  }
}

// The panel from `row` on, of whose rows `rows` exist; the others become the zero point, or with a
// residual anything.
template <int NV, typename End>
SRT_INLINE void StoreByteRows(const QspmmTile& t, int row, int rows, const PanelRows& panel,
                              const End& end, const IntVec (&acc)[4][NV]) {
  const ByteRows to = MakeByteRows<End>(t, row, rows, panel);
#pragma GCC unroll 8
  for (int v = 0; v < NV; ++v) {
    StoreByteColumn(t, to, end, v, v == NV - 1 && t.partial, acc[0][v], acc[1][v], acc[2][v],
                    acc[3][v]);
  }
}

// Sums of a tile of any width, in memory: [4][nv].
struct StoredSums {
  const IntVec* of;
  int nv;
};

template <typename End>
SRT_INLINE void StoreByteRows(const QspmmTile& t, int row, int rows, const PanelRows& panel,
                              const End& end, const StoredSums& sums) {
  const ByteRows to = MakeByteRows<End>(t, row, rows, panel);
  const IntVec* a = sums.of;
  const IntVec* b = a + sums.nv;
  const IntVec* c = b + sums.nv;
  const IntVec* d = c + sums.nv;
  const int64_t whole = sums.nv - (t.partial ? 1 : 0);
  int64_t v = 0;
  for (; v < whole; ++v) {
    __asm__("" : "+r"(v));  // one counter, and no pointers to move
    StoreByteColumn(t, to, end, v, false, a[v], b[v], c[v], d[v]);
  }
  if (v < sums.nv) StoreByteColumn(t, to, end, v, true, a[v], b[v], c[v], d[v]);
}

// Sums: IntVec[4][NV] or StoredSums.
template <typename Sums>
SRT_INLINE void EndResidualRows(const QspmmTile& t, ByteEndKind kind, int row, int rows,
                                const PanelRows& panel, const Sums& sums) {
  const QspmmArgs& a = *t.args;
  if (kind == ByteEndKind::kResidual) {
    return StoreByteRows(t, row, rows, panel, MakeByteEnd<true, false>(a, panel), sums);
  }
  if constexpr (kScalesBytesFaster) {
    if (kind == ByteEndKind::kScaledResidual) {
      return StoreByteRows(t, row, rows, panel, MakeByteEnd<true, true, true>(a, panel), sums);
    }
  }
  StoreByteRows(t, row, rows, panel, MakeByteEnd<true, true>(a, panel), sums);
}

// The same, one function for tiles of all widths: it is long.
SRT_NOINLINE inline void EndStoredResiduals(const QspmmTile& t, int row, int rows,
                                            const PanelRows& panel, const IntVec* sums, int nv) {
  EndResidualRows(t, ByteEndOf(t), row, rows, panel, StoredSums{sums, nv});
}

template <int NV>
SRT_INLINE void EndByteRows(const QspmmTile& t, int row, int rows, const PanelRows& panel,
                            const IntVec (&acc)[4][NV]) {
  const QspmmArgs& a = *t.args;
  const ByteEndKind kind = ByteEndOf(t);
  if (kind == ByteEndKind::kSums) {
    StoreByteRows(t, row, rows, panel, MakeByteEnd<false, false>(a, panel), acc);
  } else if (kind == ByteEndKind::kPlainSums) {
    StoreByteRows(t, row, rows, panel, MakeByteEnd<false, true>(a, panel), acc);
  } else if (Vec::kShortCode) {
    EndStoredResiduals(t, row, rows, panel, acc[0], NV);
  } else {
    EndResidualRows(t, kind, row, rows, panel, acc);
  }
}

// The panel of four rows from `row` on, of which `rows` exist.
template <int NV>
SRT_INLINE void BeginPanel(const QspmmTile& t, int row, int rows, const PanelRows& panel,
                           IntVec (&acc)[4][NV]) {
#pragma GCC unroll 4
  for (int r = 0; r < 4; ++r) {
    if (panel.of[r] < rows) {
      BeginRow<NV>(t, row + panel.of[r], acc[r]);
    } else {
#pragma GCC unroll 8
      for (int v = 0; v < NV; ++v) acc[r][v] = SetInts(0);
    }
  }
}

template <int NV>
SRT_INLINE void EndSums(const QspmmTile& t, int row, int rows, const PanelRows& panel,
                        const IntVec (&acc)[4][NV]) {
  if (t.last && !t.args->f32_output) return EndByteRows(t, row, rows, panel, acc);
#pragma GCC unroll 4
  for (int r = 0; r < 4; ++r) {
    if (panel.of[r] >= rows) continue;
    if (t.last) {
      EndFloatRow(t, row + panel.of[r], acc[r], 0, NV);
    } else {
      KeepSums(t, row + panel.of[r], acc[r], 0, NV);
    }
  }
}

// What becomes no bytes of EndSums.
SRT_NOINLINE inline void EndStoredRows(const QspmmTile& t, int row, int rows,
                                       const PanelRows& panel, const IntVec* sums, int nv) {
  for (int r = 0; r < 4; ++r, sums += nv) {
    if (panel.of[r] >= rows) continue;
    for (int v = 0; v < nv; ++v) {
      const IntVec acc[1] = {sums[v]};
      if (t.last) {
        EndFloatRow(t, row + panel.of[r], acc, v, nv);
      } else {
        KeepSums(t, row + panel.of[r], acc, v, nv);
      }
    }
  }
}

// What Elementwise makes of panels in order of their rows, from `row` on, `rows` in all: sums in
// memory, `step` from row to row and of `nv` vectors.
template <bool kPlain>
SRT_NOINLINE void EndThenRows(const QspmmTile& t, int row, int rows, const PanelRows& panel,
                              const int32_t* sums, int step, int nv) {
  const QspmmArgs& a = *t.args;
  const QuantizeArgs& then = *a.then;
  const ElementwiseEnd end = MakeElementwiseEnd(then);
  const Vec low = Set1(static_cast<float>(a.low - a.zero));
  const Vec high = Set1(static_cast<float>(a.high - a.zero));
  int place[4];
  for (int r = 0; r < 4; ++r) place[panel.of[r]] = r * step;
  const int64_t r_rows = then.r_is_float ? 4 * t.r_row : t.r_row;
  const int64_t y_rows = then.y_is_float ? 4 * t.y_row : t.y_row;
  float* y = t.y + row / 4 * y_rows;
  const float* r = t.r == nullptr ? nullptr : t.r + row / 4 * r_rows;
  for (; rows > 0; rows -= 4, row += 4, sums += 4 * step, y += y_rows) {
    const int channels = rows < 4 ? rows : 4;
    Vec scale[4];
    for (int k = 0; k < 4; ++k) scale[k] = Set1(k < channels ? t.scale[row + k] : 0.0f);
    Vec shift[4];
    LoadShifts(then.bias == nullptr ? nullptr : then.bias + row, channels, shift);
    for (int v = 0; v < nv; ++v) {
      const int64_t column = static_cast<int64_t>(v) * Vec::kLanes;
      Vec z[4];
#pragma GCC unroll 4
      for (int k = 0; k < 4; ++k) {
        const Vec sum = ToFloats(LoadInts(sums + place[k] + column));
        z[k] = Round(Clamp(Mul(sum, scale[k]), low, high));
      }
      const Mask lanes = t.partial && v + 1 == nv ? t.tail : FirstN(Vec::kLanes);
      EndElementwise<kPlain>(end, z, shift, channels, r == nullptr ? nullptr : r + column, t.r_row,
                             lanes, y + column, t.y_row);
    }
    if (r != nullptr) r += r_rows;
  }
}

SRT_INLINE void EndThen(const QspmmTile& t, int row, int rows, const PanelRows& panel,
                        const int32_t* sums, int step, int nv) {
  if (!Vec::kShortCode && IsPlainElementwise(*t.args->then)) {
    EndThenRows<true>(t, row, rows, panel, sums, step, nv);
  } else {
    EndThenRows<false>(t, row, rows, panel, sums, step, nv);
  }
}

template <int NV>
SRT_NOINLINE void EndStoredSums(const QspmmTile& t, int row, int rows, const PanelRows& panel,
                                const IntVec (&sums)[4][NV]) {
  if (t.last && t.args->then != nullptr) {
    return EndThen(t, row, rows < 4 ? rows : 4, panel, reinterpret_cast<const int32_t*>(sums[0]),
                   NV * Vec::kLanes, NV);
  }
  if (t.last && !t.args->f32_output) return EndByteRows(t, row, rows, panel, sums);
  EndStoredRows(t, row, rows, panel, sums[0], NV);
}

// What BeginPanel began.
template <int NV>
SRT_INLINE void EndPanel(const QspmmTile& t, int row, int rows, const PanelRows& panel,
                         const IntVec (&acc)[4][NV]) {
  if (Vec::kShortCode || (t.last && t.args->then != nullptr)) {
    IntVec sums[4][NV];
#pragma GCC unroll 4
    for (int r = 0; r < 4; ++r) {
#pragma GCC unroll 8
      for (int v = 0; v < NV; ++v) sums[r][v] = acc[r][v];
    }
    EndStoredSums(t, row, rows, panel, sums);
  } else {
    EndSums<NV>(t, row, rows, panel, acc);
  }
}

}  // namespace
}  // namespace SRT_ISA
}  // namespace sparsert
