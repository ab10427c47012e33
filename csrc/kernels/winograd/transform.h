// The transforms of winograd: inputs to V, sums to outputs, both a run of patches at a time.
// Included once per instruction set, after its vec_*.h, with SRT_ISA defined.
#pragma once

#include "base/arch.h"
#include "kernels/inside.h"
#include "kernels/winograd/winograd.h"
#include "simd/vec_math.h"

namespace sparsert {
namespace SRT_ISA {
namespace {

// The runs of the block that begins at vector `first_vec`, from left to right in each tile. Returns
// their number.
int MakeRuns(const WinogradArgs& a, int64_t first_vec, int vecs, int max_vecs, WinogradRun* runs) {
  constexpr int kLanes = Vec::kLanes;
  const int64_t patches_w = (a.out_w + 1) / 2;
  const int64_t patches_h = (a.out_h + 1) / 2;
  const int64_t begin = first_vec * kLanes;
  const int64_t all = a.batch * patches_h * patches_w;
  const int64_t end = all < begin + vecs * kLanes ? all : begin + vecs * kLanes;
  const int64_t depth = a.weights.depth;
  const int64_t group_rows = static_cast<int64_t>(a.weights.group_panels) * a.weights.panel_rows;
  const int tiles = (vecs + max_vecs - 1) / max_vecs;
  int count = 0;
  int64_t at = begin;
  for (int tile = 0; tile < tiles; ++tile) {
    const int64_t tile_begin = begin + static_cast<int64_t>(tile * vecs / tiles) * kLanes;
    const int64_t tile_end = begin + static_cast<int64_t>((tile + 1) * vecs / tiles) * kLanes;
    const int64_t stop = end < tile_end ? end : tile_end;
    while (at < stop) {
      const int64_t px = at % patches_w;
      const int64_t py = at / patches_w % patches_h;
      const int64_t image = at / patches_w / patches_h;
      int64_t n = patches_w - px;
      if (n > stop - at) n = stop - at;
      if (n > kLanes) n = kLanes;
      const int64_t top = 2 * py - a.pad_h;
      const int64_t left = 2 * px - a.pad_w;
      const int64_t lane = at - tile_begin;
      WinogradRun& run = runs[count++];
      run.width = static_cast<int32_t>(tile_end - tile_begin);
      run.x = image * a.x_image + top * a.in_w + left;
      run.v = (tile_begin - begin) * depth + lane;
      run.m = (tile_begin - begin) * group_rows + lane;
      run.y = image * a.y_image + 2 * py * a.out_w + 2 * px;
      run.r = image * a.r_image + 2 * py * a.out_w + 2 * px;
      run.patches = static_cast<int32_t>(n);
      const int64_t columns = a.out_w - 2 * px;
      run.columns = static_cast<int32_t>(columns < 2 * n ? columns : 2 * n);
      run.second_row = 2 * py + 1 < a.out_h;
      run.rows = static_cast<uint8_t>(BitsInside(top, a.in_h) & 15u);
      run.whole = run.rows == 15 && left >= 0 && left + 2 * kLanes + 2 <= a.in_w;
      run.fits = lane + kLanes <= run.width;
      for (int i = 0; i < 4; ++i) {
        const int64_t from = left + i / 2 * 2 + i % 2 * kLanes;
        run.inside[i] = static_cast<uint16_t>(BitsInside(from, a.in_w));
      }
      at += n;
    }
  }
  return count;
}

// V of one run of one channel. p: its first input; v: its lanes.
template <bool kWhole>
SRT_INLINE void TransformInput(const WinogradRun& run, const float* p, int64_t in_w, float* v,
                               int64_t v_point) {
  constexpr int kLanes = Vec::kLanes;
  Mask inside[4];
  if (!kWhole) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) inside[i] = MaskFromBits(run.inside[i]);
  }
  Vec t[4][4];  // d B
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    Vec read[4];
    if (kWhole || (run.rows >> i & 1) != 0) {
      const float* row = p + i * in_w;
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) {
        const float* from = row + j / 2 * 2 + j % 2 * kLanes;
        read[j] = kWhole ? LoadU(from) : LoadMask(from, inside[j]);
      }
    } else {
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) read[j] = Zero();
    }
    const Vec d0 = Evens(read[0], read[1]);
    const Vec d1 = Odds(read[0], read[1]);
    const Vec d2 = Evens(read[2], read[3]);
    const Vec d3 = Odds(read[2], read[3]);
    t[i][0] = Sub(d0, d2);
    t[i][1] = Add(d1, d2);
    t[i][2] = Sub(d2, d1);
    t[i][3] = Sub(d1, d3);
  }
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    const Vec out[4] = {Sub(t[0][j], t[2][j]), Add(t[1][j], t[2][j]), Sub(t[2][j], t[1][j]),
                        Sub(t[1][j], t[3][j])};
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      float* to = v + (4 * i + j) * v_point;
      // What a vector writes behind its run, a later run of the tile's row overwrites.
      if (run.fits) {
        StoreU(to, out[i]);
      } else {
        StoreFirst(to, run.patches, FirstN(run.patches), out[i]);
      }
    }
  }
}

// V of a whole block.
void TransformInputs(const WinogradArgs& a, const WinogradScratch& s, int vecs, int max_vecs,
                     const WinogradRun* runs, int count, const float* x, float* v) {
  const WinogradRun& last = runs[count - 1];
  const int tiles = (vecs + max_vecs - 1) / max_vecs;
  const int last_tile = (tiles - 1) * vecs / tiles;
  // Lanes behind the last patch are computed with, too.
  const bool tail = last.v + last.patches <
                    static_cast<int64_t>(last_tile) * a.weights.depth * Vec::kLanes + last.width;
  float* tail_v = v + static_cast<int64_t>(last_tile) * a.weights.depth * Vec::kLanes + last.width -
                  Vec::kLanes;
  for (int64_t k = 0; k < a.weights.depth; ++k) {
    if (tail) {
      for (int i = 0; i < kWinogradPoints; ++i) {
        Store(tail_v + i * s.v_point + k * last.width, Zero());
      }
    }
    const float* plane = x + k * a.x_plane;
    for (int i = 0; i < count; ++i) {
      const WinogradRun& run = runs[i];
      float* to = v + run.v + k * run.width;
      if (run.whole) {
        TransformInput<true>(run, plane + run.x, a.in_w, to, s.v_point);
      } else {
        TransformInput<false>(run, plane + run.x, a.in_w, to, s.v_point);
      }
    }
  }
}

// Two vectors of which `columns` floats are valid.
SRT_INLINE void LoadColumns(const float* p, int columns, Vec* lower, Vec* upper) {
  *lower = LoadMask(p, FirstN(columns));
  *upper = LoadMask(p + Vec::kLanes, FirstN(columns - Vec::kLanes));
}

SRT_INLINE void StoreColumns(float* p, int columns, Vec lower, Vec upper) {
  const int rest = columns - Vec::kLanes;
  if (rest >= 0) {
    StoreU(p, lower);
    if (rest == Vec::kLanes) {
      StoreU(p + Vec::kLanes, upper);
    } else if (rest > 0) {
      StoreFirst(p + Vec::kLanes, rest, FirstN(rest), upper);
    }
  } else {
    StoreFirst(p, columns, FirstN(columns), lower);
  }
}

// The outputs of one group: rows [first_row, first_row + rows).
void TransformSums(const WinogradArgs& a, const WinogradScratch& s, const WinogradRun* runs,
                   int count, int first_row, int rows, const float* sums, const float* r,
                   float* y) {
  const bool has_r = r != nullptr;
  for (int row = 0; row < rows; ++row) {
    const int64_t channel = first_row + row;
    const Vec bias = a.bias == nullptr ? Zero() : Set1(a.bias[channel]);
    const float* plane_r = has_r ? r + channel * a.r_plane : nullptr;
    float* plane_y = y + channel * a.y_plane;
    for (int n = 0; n < count; ++n) {
      const WinogradRun& run = runs[n];
      const float* m = sums + run.m + row * static_cast<int64_t>(run.width);
      Vec t[2][4];  // A^T M
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) {
        const Vec m0 = LoadU(m + j * s.m_point);
        const Vec m1 = LoadU(m + (4 + j) * s.m_point);
        const Vec m2 = LoadU(m + (8 + j) * s.m_point);
        const Vec m3 = LoadU(m + (12 + j) * s.m_point);
        t[0][j] = Add(m0, Add(m1, m2));
        t[1][j] = Sub(Sub(m1, m2), m3);
      }
      Vec out[4];  // lower and upper half of the columns, of both rows
#pragma GCC unroll 2
      for (int i = 0; i < 2; ++i) {
        const Vec even = Add(Add(t[i][0], Add(t[i][1], t[i][2])), bias);
        const Vec odd = Add(Sub(Sub(t[i][1], t[i][2]), t[i][3]), bias);
        out[2 * i] = ZipLower(even, odd);
        out[2 * i + 1] = ZipUpper(even, odd);
      }
      if (has_r) {
        const float* from = plane_r + run.r;
#pragma GCC unroll 2
        for (int i = 0; i < 2; ++i) {
          if (i == 1 && !run.second_row) break;
          Vec lower;
          Vec upper;
          LoadColumns(from + i * a.out_w, run.columns, &lower, &upper);
          out[2 * i] = Add(out[2 * i], lower);
          out[2 * i + 1] = Add(out[2 * i + 1], upper);
        }
      }
      ActivateRegisters(a.act, out);
      float* to = plane_y + run.y;
      StoreColumns(to, run.columns, out[0], out[1]);
      if (run.second_row) StoreColumns(to + a.out_w, run.columns, out[2], out[3]);
    }
  }
}

}  // namespace
}  // namespace SRT_ISA
}  // namespace sparsert
