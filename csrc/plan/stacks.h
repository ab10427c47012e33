// Convolutions by stacks of rows (see SpmmStack).
#pragma once

#include "plan/build_taps.h"
#include "plan/pack_spmm.h"

namespace sparsert {

// Cuts Y into stacks (see SpmmStack) of at most `max_vecs` rows. `row_vecs`: vectors of a row.
Tiling MakeStackTiling(const Window& window, int lanes, int max_vecs, int32_t* row_vecs);

// How such a window is fed, in blocks of `channels`.
SpmmStack MakeStack(const Window& window, int32_t row_vecs, int32_t channels);

// Vectors of a channel that the copies of a stack may have, so that 16 bits say which one.
constexpr int64_t kMaxStackCopies = 65536;

// Ids of a packing that keeps every K-row, of blocks of whole channels, become those of stacks (see
// FeedStack): `width` columns of the kernel, `rows` copied for each.
Status StackIds(int32_t taps, int32_t width, int32_t rows, PackedSpmm* packed);

}  // namespace sparsert
