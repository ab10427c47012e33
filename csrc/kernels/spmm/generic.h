// spmm over Vec: walks tiles and blocks, calls the feed and the micro-kernels.
// Included once per instruction set, after its vec_*.h, with SRT_ISA defined.
#pragma once

#include "base/arch.h"
#include "kernels/spmm/feed.h"
#include "kernels/spmm/feed_stack.h"
#include "kernels/spmm/micro_kernels.h"

namespace sparsert {
namespace SRT_ISA {
namespace {

// Blocks of K that a call computes of a tile.
struct BlockRange {
  int begin;
  int end;
};

template <typename Micro, int NV, int kLower>
void RunTile(const SpmmArgs& a, const PackedMatrix& m, int tile, const float* x, BlockRange blocks,
             SpmmTile* t, float* scratch) {
  for (int block = blocks.begin; block < blocks.end; ++block) {
    if (a.direct) {
      t->x_row = kHasTiledPlanes && a.x_in_tiles ? NV * Vec::kLanes : a.x_row;
      t->x = x + static_cast<int64_t>(block) * m.block_depth * t->x_row;
    } else {
      FeedTile<NV, false>(a, m, block, tile, x, 0.0f, scratch);
      t->x = scratch;
      t->x_row = NV * Vec::kLanes;
    }
    t->block = block;
    t->first = block == 0;
    t->last = block + 1 >= m.blocks;
    Micro::template Run<NV, kLower>(m, *t);
  }
}

// `tail`: the last vector's valid columns.
template <typename Micro, int NV>
void RunTile(const SpmmArgs& a, const PackedMatrix& m, int tile, const float* x, BlockRange blocks,
             SpmmTile* t, float* scratch, int tail) {
  constexpr bool kMayJoin = Micro::kJoins && NV > 1;
  if (kMayJoin && tail == 1 && a.join_ends) {
    t->partial = false;
    RunTile<Micro, NV, (kMayJoin ? kJoined : kNoneLower)>(a, m, tile, x, blocks, t, scratch);
  } else if (Vec::kLowerLanes > 0 && tail <= Vec::kLowerLanes) {
    RunTile<Micro, NV, (Vec::kLowerLanes > 0 ? kLastLower : kNoneLower)>(a, m, tile, x, blocks, t,
                                                                         scratch);
  } else {
    RunTile<Micro, NV, kNoneLower>(a, m, tile, x, blocks, t, scratch);
  }
}

// Where one (image, group) lies: row 0 of its group at column 0.
struct SpmmOrigin {
  const float* x;
  float* y;
  const float* r;  // nullptr: no residual
  float* sums;
};

// Computes blocks of a tile; `t` has what all tiles of the item share.
template <typename Micro, int kMaxVecs>
SRT_INLINE void RunTile(const SpmmArgs& a, const PackedMatrix& m, int tile, BlockRange blocks,
                        const SpmmOrigin& at, SpmmTile* t, float* scratch) {
  const int64_t vec_begin = static_cast<int64_t>(tile) * a.vecs / a.tiles;
  const int vecs = static_cast<int>((tile + 1LL) * a.vecs / a.tiles - vec_begin);
  const int64_t column = vec_begin * Vec::kLanes;
  const int64_t left = a.columns - column;
  t->partial = left < static_cast<int64_t>(vecs) * Vec::kLanes;
  const int tail = t->partial ? static_cast<int>(left - (vecs - 1) * Vec::kLanes) : Vec::kLanes;
  t->tail = FirstN(tail);
  const int64_t width = static_cast<int64_t>(vecs) * Vec::kLanes;
  const bool y_in_tiles = kHasTiledPlanes && a.y_in_tiles;
  const bool r_in_tiles = kHasTiledPlanes && a.r_in_tiles;
  const bool x_in_tiles = kHasTiledPlanes && a.x_in_tiles;
  t->y_row = y_in_tiles ? width : a.y_row;
  t->r_row = r_in_tiles ? width : a.r_row;
  t->y = at.y + column * (y_in_tiles ? m.rows : 1);
  t->r = at.r == nullptr ? nullptr : at.r + column * (r_in_tiles ? m.rows : 1);
  // Scratch holds the sums of the item's rows, tile after tile if it computes them in turn.
  const int64_t rows = static_cast<int64_t>(t->panel_end - t->panel_begin) * m.panel_rows;
  const int64_t row_begin = static_cast<int64_t>(t->panel_begin) * m.panel_rows;
  t->sums = at.sums;
  if (m.blocks > 1) {
    t->sums += (a.by_blocks ? rows * column : 0) - row_begin * width;
  }
  const float* x = at.x + (a.direct ? column * (x_in_tiles ? m.depth : 1) : 0);
  switch (vecs) {
#define SRT_WIDTH(n)                                                                    \
  case n:                                                                               \
    if (n <= kMaxVecs) {                                                                \
      RunTile<Micro, (n <= kMaxVecs ? n : 1)>(a, m, tile, x, blocks, t, scratch, tail); \
    }                                                                                   \
    break;
    SRT_WIDTH(1)
    SRT_WIDTH(2)
    SRT_WIDTH(3)
    SRT_WIDTH(4)
    SRT_WIDTH(5)
    SRT_WIDTH(6)
    SRT_WIDTH(7)
    SRT_WIDTH(8)
#undef SRT_WIDTH
    default:
      break;
  }
}

template <typename Micro, int NV, int kLower>
void RunStack(const SpmmArgs& a, const PackedMatrix& m, const StackPlace& place, const float* x,
              StackedTile* t, float* scratch) {
  t->x = scratch;
  t->x_row = Vec::kLanes;
  for (int block = 0; block < m.blocks; ++block) {
    FeedStack<NV>(a, m, block, place, x, scratch);
    t->block = block;
    t->first = block == 0;
    t->last = block + 1 >= m.blocks;
    Micro::template Run<NV, kLower>(m, *t);
  }
}

template <typename Micro, int NV>
void RunStack(const SpmmArgs& a, const PackedMatrix& m, const StackPlace& place, const float* x,
              StackedTile* t, float* scratch) {
  if (Vec::kLowerLanes > 0 && a.stack.width - place.column <= Vec::kLowerLanes) {
    RunStack<Micro, NV, (Vec::kLowerLanes > 0 ? kAllLower : kNoneLower)>(a, m, place, x, t,
                                                                         scratch);
  } else {
    RunStack<Micro, NV, kNoneLower>(a, m, place, x, t, scratch);
  }
}

// As RunTile, all blocks of a tile that is a stack.
template <typename Micro, int kMaxVecs>
SRT_INLINE void RunStack(const SpmmArgs& a, const PackedMatrix& m, int tile, const SpmmOrigin& at,
                         StackedTile* t, float* scratch) {
  const SpmmStack& s = a.stack;
  const int stacks = a.tiles / s.row_vecs;
  StackPlace place;
  place.row = static_cast<int>(static_cast<int64_t>(tile / s.row_vecs) * s.height / stacks);
  place.column = tile % s.row_vecs * Vec::kLanes;
  const int vecs =
      static_cast<int>((tile / s.row_vecs + int64_t{1}) * s.height / stacks) - place.row;
  const int left = s.width - place.column;
  t->partial = left < Vec::kLanes;
  t->tail = FirstN(left);
  t->y_vec = s.width;
  t->y_row = a.y_row;
  t->r_row = a.r_row;
  const int64_t offset = static_cast<int64_t>(place.row) * s.width + place.column;
  t->y = at.y + offset;
  t->r = at.r == nullptr ? nullptr : at.r + offset;
  t->sums = at.sums;
  if (m.blocks > 1) {
    t->sums -= static_cast<int64_t>(t->panel_begin) * m.panel_rows * vecs * Vec::kLanes;
  }
  switch (vecs) {
#define SRT_HEIGHT(n)                                                          \
  case n:                                                                      \
    if (n <= kMaxVecs) {                                                       \
      RunStack<Micro, (n <= kMaxVecs ? n : 1)>(a, m, place, at.x, t, scratch); \
    }                                                                          \
    break;
    SRT_HEIGHT(1)
    SRT_HEIGHT(2)
    SRT_HEIGHT(3)
    SRT_HEIGHT(4)
    SRT_HEIGHT(5)
    SRT_HEIGHT(6)
    SRT_HEIGHT(7)
    SRT_HEIGHT(8)
#undef SRT_HEIGHT
    default:
      break;
  }
}

template <typename Micro, int kMaxVecs>
SRT_INLINE void RunSpmm(const void* args, void* const* io, int64_t begin, int64_t end,
                        void* scratch) {
  const SpmmArgs& a = *static_cast<const SpmmArgs*>(args);
  const int tiles = SpmmItemTiles(a);
  for (int64_t item = begin; item < end; ++item) {
    const int64_t parts = static_cast<int64_t>(tiles) * a.splits;
    const int part = static_cast<int>(item % parts);
    const int split = a.by_rows ? part / tiles : part % a.splits;
    const int group = static_cast<int>(item / parts % a.groups);
    const int64_t image = item / parts / a.groups;
    const PackedMatrix& m = a.weights[group];
    const int32_t* bounds = a.split_panels + static_cast<int64_t>(group) * (a.splits + 1);
    StackedTile t;
    t.panel_begin = bounds[split];
    t.panel_end = bounds[split + 1];
    if (t.panel_begin == t.panel_end) continue;  // few panels, unevenly filled
    t.bias = a.bias == nullptr ? nullptr : a.bias + static_cast<int64_t>(group) * m.rows;
    t.act = a.act;
    t.ahead = a.fetch_ahead;
    t.stream = a.tiles == 1 || a.fetch_weights;
    t.fetch_x = a.fetch_x;
    t.by_fours = a.weights_by_fours;
    float* feed = static_cast<float*>(scratch);
    SpmmOrigin at;
    at.x = static_cast<const float*>(io[0]) + image * a.x_image + group * a.x_group;
    at.y = static_cast<float*>(io[2]) + image * a.y_image + group * a.y_group;
    at.r = static_cast<const float*>(io[1]);
    if (at.r != nullptr) at.r += image * a.r_image + group * a.r_group;
    at.sums = feed + SpmmFeedFloats(a, Vec::kLanes, m.block_depth);
    const int tile = a.by_rows ? part % tiles : part / a.splits;
    if constexpr (Micro::kStacks) {
      if (a.stack.row_vecs != 0) {
        RunStack<Micro, kMaxVecs>(a, m, tile, at, &t, feed);
        continue;
      }
    }
    if (a.by_blocks) {
      for (int block = 0; block < m.blocks; ++block) {
        for (int n = 0; n < a.tiles; ++n) {
          RunTile<Micro, kMaxVecs>(a, m, n, {block, block + 1}, at, &t, feed);
        }
      }
    } else {
      RunTile<Micro, kMaxVecs>(a, m, tile, {0, m.blocks}, at, &t, feed);
    }
  }
}

using DenseMicro = PanelMicro<4, false>;
using Bsr4Micro = PanelMicro<4, true>;
using Bsr8Micro = PanelMicro<8, true>;
using Dense8Micro = PanelMicro<8, false>;

}  // namespace

// The rows of this instruction set in kernels.inc; the width there is the widest tile.
#define SRT_SPMM(format, Format, rows, width, isa, IsaId, lanes) \
  namespace table_##isa {                                        \
    struct Format##Width {                                       \
      static constexpr int kMaxVecs = (width) / (lanes);         \
    };                                                           \
  }
#include "kernels/spmm/kernels.inc"
#undef SRT_SPMM

#define SRT_TABLE_(isa) table_##isa
#define SRT_TABLE(isa) SRT_TABLE_(isa)
#define SRT_DEFINE(Format)                                                                         \
  void Spmm##Format(const void* args, void* const* io, int64_t begin, int64_t end, void* scratch); \
  void Spmm##Format(const void* args, void* const* io, int64_t begin, int64_t end,                 \
                    void* scratch) {                                                               \
    const DenormalsAreZero guard;                                                                  \
    RunSpmm<Format##Micro, SRT_TABLE(SRT_ISA)::Format##Width::kMaxVecs>(args, io, begin, end,      \
                                                                        scratch);                  \
  }
SRT_DEFINE(Dense)
SRT_DEFINE(Csr)
SRT_DEFINE(Pat4)
SRT_DEFINE(Bsr4)
SRT_DEFINE(Bsr8)
SRT_DEFINE(Dense8)
SRT_DEFINE(Csr2)
#if !defined(SRT_ARM)
SRT_DEFINE(Csr4)
#endif
#undef SRT_DEFINE

// For qspmm's files too, whose widest tiles are narrower.
#define SRT_FEED(NV, kPad)                                                                       \
  template void FeedTile<NV, kPad>(const SpmmArgs&, const PackedMatrix&, int, int, const float*, \
                                   float, float*);
SRT_FEED(1, false)
SRT_FEED(2, false)
SRT_FEED(3, false)
SRT_FEED(4, false)
SRT_FEED(5, false)
SRT_FEED(6, false)
SRT_FEED(7, false)
SRT_FEED(1, true)
SRT_FEED(2, true)
SRT_FEED(3, true)
SRT_FEED(4, true)
SRT_FEED(5, true)
#if !defined(SRT_ARM)
SRT_FEED(6, true)
SRT_FEED(7, true)
#endif
#undef SRT_FEED
#undef SRT_TABLE
#undef SRT_TABLE_

}  // namespace SRT_ISA
}  // namespace sparsert
