// Copies the inputs of one tile and one block of K, tap by tap, into the tile's slab.
// Included once per instruction set, after its vec_*.h, with SRT_ISA defined.
#pragma once

#include "base/arch.h"
#include "kernels/spmm/load_tap.h"
#include "kernels/spmm/spmm.h"

namespace sparsert {
namespace SRT_ISA {
namespace {

// One column of vectors: the same vector of columns for the channels of a run.
struct FeedColumn {
  const float* x;
  int64_t x_row;
  const uint32_t* channel;
  int count;
  float* to;
  int64_t to_row;
};

// A vector joined from N runs of lanes with step kStep; lanes outside a run load as 0.
template <int N, int kStep>
void FeedSegments(const FeedColumn& f, const TapSegment* segments) {
  int32_t base[N];
  Mask masks[N];
  Stride2Mask spread[N];
  for (int i = 0; i < N; ++i) {
    base[i] = segments[i].base;
    masks[i] = MaskFromBits(segments[i].mask);
    spread[i] = SpreadMask(masks[i]);
  }
  for (int c = 0; c < f.count; ++c) {
    const float* plane = f.x + f.channel[c] * f.x_row;
    Vec sum = Zero();
#pragma GCC unroll 4
    for (int i = 0; i < N; ++i) {
      const float* p = plane + base[i];
      sum = Or(sum, kStep == 1 ? LoadMaskInline(p, masks[i]) : LoadStride2Mask(p, spread[i]));
    }
    Store(f.to + c * f.to_row, sum);
  }
}

// How many segments a vector has, if they are 2 to 4 of one step; else 0.
inline int UniformSegments(const TapSegment* s) {
  int n = 1;
  for (; !s[n - 1].last; ++n) {
    if (s[n].step != s[0].step) return 0;
  }
  return n >= 2 && n <= 4 ? n : 0;
}

inline void FeedMixed(const FeedColumn& f, const TapVec& tap, const TapTable& table) {
  if (tap.mode == TapMode::kSegments) {
    const TapSegment* s = table.segments + tap.table;
    switch (UniformSegments(s) * 10 + s->step) {
      case 21:
        return FeedSegments<2, 1>(f, s);
      case 22:
        return FeedSegments<2, 2>(f, s);
      case 31:
        return FeedSegments<3, 1>(f, s);
      case 32:
        return FeedSegments<3, 2>(f, s);
      case 41:
        return FeedSegments<4, 1>(f, s);
      case 42:
        return FeedSegments<4, 2>(f, s);
      default:
        break;
    }
  }
  for (int c = 0; c < f.count; ++c) {
    Store(f.to + c * f.to_row, LoadTap(f.x + f.channel[c] * f.x_row, tap, table));
  }
}

}  // namespace

// Fills the tile of one block: K-row i becomes scratch[i * NV * lanes ...]. Where a tap lies in the
// padding it gives 0, or with kPad the bits of `fill`.
template <int NV, bool kPad>
void FeedTile(const SpmmArgs& a, const PackedMatrix& m, int block, int tile, const float* x,
              float fill, float* scratch) {
  const uint32_t* channel = m.channels + static_cast<size_t>(block) * m.block_depth;
  const TapVec* taps = a.taps.entries + static_cast<size_t>(tile) * a.taps.taps * a.taps.tile_vecs;
  constexpr int kRow = NV * Vec::kLanes;
  float* to = scratch;
  for (uint32_t i = m.run_offsets[block]; i < m.run_offsets[block + 1]; ++i) {
    const FeedRun run = m.runs[i];
    const TapVec* tap = taps + run.tap * a.taps.tile_vecs;
    Vec pad[NV];  // what joins the lanes that were read
    if (kPad) {
#pragma GCC unroll 8
      for (int v = 0; v < NV; ++v) pad[v] = Select(MaskFromBits(tap[v].mask), Zero(), Set1(fill));
    }
    if (tap->uniform == TapMode::kContiguous) {
      Mask masks[NV];
#pragma GCC unroll 8
      for (int v = 0; v < NV; ++v) masks[v] = MaskFromBits(tap[v].mask);
      for (int c = 0; c < run.count; ++c) {
        const float* plane = x + channel[c] * a.x_row;
#pragma GCC unroll 8
        for (int v = 0; v < NV; ++v) {
          const Vec lanes = LoadMask(plane + tap[v].base, masks[v]);
          Store(to + c * kRow + v * Vec::kLanes, kPad ? Or(lanes, pad[v]) : lanes);
        }
      }
    } else if (tap->uniform == TapMode::kStride2) {
      Stride2Mask masks[NV];
#pragma GCC unroll 8
      for (int v = 0; v < NV; ++v) masks[v] = SpreadMask(MaskFromBits(tap[v].mask));
      for (int c = 0; c < run.count; ++c) {
        const float* plane = x + channel[c] * a.x_row;
#pragma GCC unroll 8
        for (int v = 0; v < NV; ++v) {
          const Vec lanes = LoadStride2Mask(plane + tap[v].base, masks[v]);
          Store(to + c * kRow + v * Vec::kLanes, kPad ? Or(lanes, pad[v]) : lanes);
        }
      }
    } else if (tap->uniform == TapMode::kPick) {
      PickIndex index[NV];
      Mask masks[NV];
#pragma GCC unroll 8
      for (int v = 0; v < NV; ++v) {
        index[v] = LoadPickIndex(a.taps.gather + tap[v].table);
        masks[v] = MaskFromBits(tap[v].mask);
      }
      for (int c = 0; c < run.count; ++c) {
        const float* plane = x + channel[c] * a.x_row;
#pragma GCC unroll 8
        for (int v = 0; v < NV; ++v) {
          const Vec lanes = LoadPicked(plane + tap[v].base, index[v], masks[v]);
          Store(to + c * kRow + v * Vec::kLanes, kPad ? Or(lanes, pad[v]) : lanes);
        }
      }
    } else {
      for (int v = 0; v < NV; ++v) {
        float* column = to + v * Vec::kLanes;
        FeedMixed({x, a.x_row, channel, run.count, column, kRow}, tap[v], a.taps);
        for (int c = 0; kPad && c < run.count; ++c) {
          Store(column + c * kRow, Or(Load(column + c * kRow), pad[v]));
        }
      }
    }
    to += run.count * kRow;
    channel += run.count;
  }
}

}  // namespace SRT_ISA
}  // namespace sparsert
