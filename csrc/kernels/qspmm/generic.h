// qspmm over Vec and groups of four bytes: walks tiles and blocks, calls spmm's feed and the
// micro-kernels.
// Included once per instruction set, after its vec_*.h and dot_*.h, with SRT_ISA defined.
#pragma once

#include <cstring>

#include "base/arch.h"
#include "kernels/qspmm/any4.h"
#include "kernels/qspmm/csr4.h"
#include "kernels/qspmm/micro_kernels.h"

namespace sparsert {
namespace SRT_VEC_ISA {
// That of kernels/spmm/feed.h, in spmm's files.
template <int NV, bool kPad>
void FeedTile(const SpmmArgs& a, const PackedMatrix& m, int block, int tile, const float* x,
              float fill, float* scratch);
}  // namespace SRT_VEC_ISA

namespace SRT_ISA {
namespace {

template <typename Micro, int NV, bool kHalf>
void RunTile(const QspmmArgs& args, const PackedMatrix& m, int tile, const float* x, QspmmTile* t,
             float* scratch) {
  const SpmmArgs& a = args.product;
  uint32_t fill_bits = t->fill;
  fill_bits |= fill_bits << 8;
  fill_bits |= fill_bits << 16;
  float fill;
  std::memcpy(&fill, &fill_bits, sizeof(fill));
  for (int block = 0; block < m.blocks; ++block) {
    if (a.direct) {
      t->x = x + static_cast<int64_t>(block) * m.block_depth * a.x_row;
      t->x_row = a.x_row;
    } else {
      if (t->fill == 0) {
        SRT_VEC_ISA::FeedTile<NV, false>(a, m, block, tile, x, 0.0f, scratch);
      } else {
        SRT_VEC_ISA::FeedTile<NV, true>(a, m, block, tile, x, fill, scratch);
      }
      t->x = scratch;
      t->x_row = NV * Vec::kLanes;
    }
    if constexpr (Micro::kPreparesX) {
      float* rows = scratch + SpmmFeedFloats(a, Vec::kLanes, m.block_depth);
      const int left = m.depth - block * m.block_depth;
      const int depth = left < m.block_depth ? left : m.block_depth;
      t->x = Micro::template PrepareX<NV>(t->x, t->x_row, depth, rows);
    }
    t->block = block;
    t->first = block == 0;
    t->last = block + 1 >= m.blocks;
    Micro::template Run<NV, kHalf>(m, *t);
  }
}

template <typename Micro, int NV>
SRT_INLINE void RunTileOf(const QspmmArgs& args, const PackedMatrix& m, int tile, const float* x,
                          QspmmTile* t, float* scratch) {
  if constexpr (kHasHalfDots && !Micro::kPreparesX) {
    const bool is_half = t->partial && args.product.columns % Vec::kLanes <= Vec::kLanes / 2;
    if (args.half_tails && is_half) {
      return RunTile<Micro, NV, true>(args, m, tile, x, t, scratch);
    }
  }
  RunTile<Micro, NV, false>(args, m, tile, x, t, scratch);
}

template <typename Micro, int kMaxVecs>
SRT_INLINE void RunQspmm(const void* args, void* const* io, int64_t begin, int64_t end,
                         void* scratch) {
  const QspmmArgs& q = *static_cast<const QspmmArgs*>(args);
  const SpmmArgs& a = q.product;
  for (int64_t item = begin; item < end; ++item) {
    QspmmItem at = FindItem(q, io, item);
    QspmmTile& t = at.tile;
    if (t.panel_begin == t.panel_end) continue;  // few panels, unevenly filled
    const PackedMatrix& m = *at.weights;
    const int tile = at.index;
    const int vecs = at.vecs;
    const float* x = at.x;
    t.stream = a.tiles == 1 || a.fetch_weights;
    float* s = static_cast<float*>(scratch);
    // Scratch holds the sums of the item's rows.
    const int64_t row_begin = static_cast<int64_t>(t.panel_begin) * m.panel_rows;
    const int64_t prepared =
        Micro::kPreparesX ? QspmmPreparedFloats(Vec::kLanes, m.block_depth) : 0;
    t.sums =
        reinterpret_cast<int32_t*>(s + SpmmFeedFloats(a, Vec::kLanes, m.block_depth) + prepared);
    if (m.blocks > 1) t.sums -= row_begin * vecs * Vec::kLanes;
    switch (vecs) {
#define SRT_WIDTH(n)                                                                    \
  case n:                                                                               \
    if (n <= kMaxVecs) RunTileOf<Micro, (n <= kMaxVecs ? n : 1)>(q, m, tile, x, &t, s); \
    break;
      SRT_WIDTH(1)
      SRT_WIDTH(2)
      SRT_WIDTH(3)
      SRT_WIDTH(4)
      SRT_WIDTH(5)
      SRT_WIDTH(6)
      SRT_WIDTH(7)
#undef SRT_WIDTH
      default:
        break;
    }
  }
}

using DenseMicro = PanelMicro<4, false>;
using Bsr4Micro = PanelMicro<4, true>;
using Bsr8Micro = PanelMicro<8, true>;
using Dense8Micro = PanelMicro<8, false>;

}  // namespace

// The rows of this instruction set in kernels.inc; the width there is the widest tile.
#define SRT_QSPMM(format, Format, rows, width, isa, IsaId, lanes, offset) \
  namespace table_##isa {                                                 \
    struct Format##Width {                                                \
      static constexpr int kMaxVecs = (width) / (lanes);                  \
      static constexpr int kOffset = offset;                              \
    };                                                                    \
  }
#include "kernels/qspmm/kernels.inc"
#undef SRT_QSPMM

#define SRT_TABLE_(isa) table_##isa
#define SRT_TABLE(isa) SRT_TABLE_(isa)
#define SRT_DEFINE(Format)                                                                     \
  static_assert(SRT_TABLE(SRT_ISA)::Format##Width::kOffset == kByteOffset, "as in dot_*.h");   \
  void Qspmm##Format(const void* args, void* const* io, int64_t begin, int64_t end,            \
                     void* scratch);                                                           \
  void Qspmm##Format(const void* args, void* const* io, int64_t begin, int64_t end,            \
                     void* scratch) {                                                          \
    RunQspmm<Format##Micro, SRT_TABLE(SRT_ISA)::Format##Width::kMaxVecs>(args, io, begin, end, \
                                                                         scratch);             \
  }
SRT_DEFINE(Dense)
SRT_DEFINE(Csr2)
SRT_DEFINE(Pat4)
SRT_DEFINE(Bsr4)
SRT_DEFINE(Bsr8)
SRT_DEFINE(Dense8)
#if !defined(SRT_ARM)  // not measured there, and small devices have the other formats
SRT_DEFINE(Any4)
SRT_DEFINE(Csr4)
#endif
#undef SRT_DEFINE
#undef SRT_TABLE
#undef SRT_TABLE_

}  // namespace SRT_ISA
}  // namespace sparsert
