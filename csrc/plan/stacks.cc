// Tiles, arguments and ids of stacks.
#include "plan/stacks.h"

#if !defined(SRT_ARM)  // see kHasStacks

namespace sparsert {

Tiling MakeStackTiling(const Window& window, int lanes, int max_vecs, int32_t* row_vecs) {
  const int64_t vecs = (window.out[1] + lanes - 1) / lanes;
  const int64_t stacks = (window.out[0] + max_vecs - 1) / max_vecs;
  Tiling t;
  t.lanes = lanes;
  t.vecs = static_cast<int32_t>(vecs * window.out[0]);
  t.tiles = static_cast<int32_t>(vecs * stacks);
  t.tile_vecs = static_cast<int32_t>((window.out[0] + stacks - 1) / stacks);
  *row_vecs = static_cast<int32_t>(vecs);
  return t;
}

SpmmStack MakeStack(const Window& window, int32_t row_vecs, int32_t channels) {
  SpmmStack s;
  s.row_vecs = row_vecs;
  s.height = static_cast<int32_t>(window.out[0]);
  s.width = static_cast<int32_t>(window.out[1]);
  s.in_height = static_cast<int32_t>(window.in[0]);
  s.in_width = static_cast<int32_t>(window.in[1]);
  s.kernel_height = static_cast<int32_t>(window.kernel[0]);
  s.kernel_width = static_cast<int32_t>(window.kernel[1]);
  s.pad_top = static_cast<int32_t>(window.pad_begin[0]);
  s.pad_left = static_cast<int32_t>(window.pad_begin[1]);
  s.channels = channels;
  return s;
}

Status StackIds(int32_t taps, int32_t width, int32_t rows, PackedSpmm* packed) {
  for (uint16_t& id : packed->ids) {
    const int32_t tap = id % taps;
    const int64_t copy = (int64_t{id} / taps * width + tap % width) * rows + tap / width;
    if (copy > UINT16_MAX) {
      return Status::Error(StatusCode::kInternal,
                           "a stack of %d rows for %d taps has more copies than ids can name", rows,
                           taps);
    }
    id = static_cast<uint16_t>(copy);
  }
  return Status::Ok();
}

}  // namespace sparsert

#endif
