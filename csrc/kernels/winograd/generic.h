// winograd over Vec: walks blocks of patches and groups of rows.
// Included once per instruction set, after its vec_*.h, with SRT_ISA defined.
#pragma once

#include "base/arch.h"
#include "kernels/winograd/transform.h"

namespace sparsert {
namespace SRT_ISA {
namespace {

// The row of this instruction set in kernels.inc.
#define SRT_WINOGRAD(rows, width, isa, IsaId, lanes)   \
  namespace table_##isa {                              \
    constexpr int kPanelRows = rows;                   \
    constexpr int kMaxVecs = (width) / (lanes);        \
    static_assert(kMaxVecs >= 1 && kMaxVecs <= 3, ""); \
  }
#include "kernels/winograd/kernels.inc"
#undef SRT_WINOGRAD
#define SRT_TABLE_(isa) table_##isa
#define SRT_TABLE(isa) SRT_TABLE_(isa)
constexpr int kPanelRows = SRT_TABLE(SRT_ISA)::kPanelRows;
constexpr int kMaxVecs = SRT_TABLE(SRT_ISA)::kMaxVecs;
#undef SRT_TABLE
#undef SRT_TABLE_

// Floats of U that are asked for ahead: large layers read them once, from beyond L2.
constexpr int kWeightsAhead = 512;

// Adds the products of a slab to the sums of successive panels, for one tile and one point.
// u: [panels][depth][kPanelRows]; v: [depth][NV vectors]; sums: [panels * kPanelRows][NV vectors],
// which the first slab begins.
template <int NV>
void MultiplyTile(const float* u, const float* v, int depth, int panels, float* sums, bool first) {
  constexpr int kWidth = NV * Vec::kLanes;
  for (int p = 0; p < panels; ++p, sums += kPanelRows * kWidth) {
    Vec acc[kPanelRows][NV];
#pragma GCC unroll 8
    for (int r = 0; r < kPanelRows; ++r) {
#pragma GCC unroll 3
      for (int i = 0; i < NV; ++i) {
        acc[r][i] = first ? Zero() : Load(sums + r * kWidth + i * Vec::kLanes);
      }
    }
    const float* x = v;
    for (int k = 0; k < depth; ++k, u += kPanelRows, x += kWidth) {
      __builtin_prefetch(u + kWeightsAhead);
      Vec xv[NV];
#pragma GCC unroll 3
      for (int i = 0; i < NV; ++i) xv[i] = Load(x + i * Vec::kLanes);
#pragma GCC unroll 8
      for (int r = 0; r < kPanelRows; ++r) {
        const Vec w = Set1(u[r]);
#pragma GCC unroll 3
        for (int i = 0; i < NV; ++i) acc[r][i] = Fma(w, xv[i], acc[r][i]);
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < kPanelRows; ++r) {
#pragma GCC unroll 3
      for (int i = 0; i < NV; ++i) Store(sums + r * kWidth + i * Vec::kLanes, acc[r][i]);
    }
  }
}

// The sums of one group of rows, all points and tiles. `u`: the group's weights.
void MultiplyGroup(const WinogradArgs& a, const WinogradScratch& s, int vecs, int panels,
                   const float* u, const float* v, float* sums) {
  const int depth = a.weights.depth;
  const int group_rows = a.weights.group_panels * kPanelRows;
  const int tiles = (vecs + kMaxVecs - 1) / kMaxVecs;
  for (int point = 0; point < kWinogradPoints; ++point, v += s.v_point, sums += s.m_point) {
    for (int k = 0; k < depth; k += a.weights.block_depth) {
      const int left = depth - k;
      const int slab = left < a.weights.block_depth ? left : a.weights.block_depth;
      for (int tile = 0; tile < tiles; ++tile) {
        const int begin = tile * vecs / tiles;
        const int nv = (tile + 1) * vecs / tiles - begin;
        const float* tile_v = v + static_cast<int64_t>(begin * depth + k * nv) * Vec::kLanes;
        float* tile_sums = sums + static_cast<int64_t>(begin) * group_rows * Vec::kLanes;
        switch (nv) {
          case 1:
            MultiplyTile<1>(u, tile_v, slab, panels, tile_sums, k == 0);
            break;
          case 2:
            MultiplyTile < kMaxVecs<2 ? 1 : 2>(u, tile_v, slab, panels, tile_sums, k == 0);
            break;
          default:
            MultiplyTile<kMaxVecs>(u, tile_v, slab, panels, tile_sums, k == 0);
            break;
        }
      }
      u += static_cast<int64_t>(panels) * slab * kPanelRows;
    }
  }
}

}  // namespace

void Winograd(const void* args, void* const* io, int64_t begin, int64_t end, void* scratch);
void Winograd(const void* args, void* const* io, int64_t begin, int64_t end, void* scratch) {
  const DenormalsAreZero guard;
  const WinogradArgs& a = *static_cast<const WinogradArgs*>(args);
  const WinogradScratch s = LayOutWinogradScratch(a, Vec::kLanes);
  const auto* x = static_cast<const float*>(io[0]);
  const auto* r = static_cast<const float*>(io[1]);
  auto* y = static_cast<float*>(io[2]);
  auto* v = static_cast<float*>(scratch);
  float* sums = v + s.m;
  auto* runs = reinterpret_cast<WinogradRun*>(v + s.runs);
  const int64_t all_groups = a.weights.groups();
  const int64_t group_floats =
      static_cast<int64_t>(a.weights.group_panels) * kPanelRows * a.weights.depth * kWinogradPoints;
  int64_t made = -1;  // the block that V holds
  int count = 0;
  for (int64_t item = begin; item < end; ++item) {
    const int64_t block = item / a.splits;
    const int64_t split = item % a.splits;
    const int64_t first_vec = block * a.vecs / a.blocks;
    const int vecs = static_cast<int>((block + 1) * a.vecs / a.blocks - first_vec);
    if (block != made) {
      count = MakeRuns(a, first_vec, vecs, kMaxVecs, runs);
      TransformInputs(a, s, vecs, kMaxVecs, runs, count, x, v);
      made = block;
    }
    const int64_t last = (split + 1) * all_groups / a.splits;
    for (int64_t group = split * all_groups / a.splits; group < last; ++group) {
      const int first_panel = static_cast<int>(group) * a.weights.group_panels;
      const int left = a.weights.panels() - first_panel;
      const int panels = left < a.weights.group_panels ? left : a.weights.group_panels;
      MultiplyGroup(a, s, vecs, panels, a.weights.values + group * group_floats, v, sums);
      const int first_row = first_panel * kPanelRows;
      const int rows_left = a.weights.rows - first_row;
      const int rows = rows_left < panels * kPanelRows ? rows_left : panels * kPanelRows;
      TransformSums(a, s, runs, count, first_row, rows, sums, r, y);
    }
  }
}

}  // namespace SRT_ISA
}  // namespace sparsert
