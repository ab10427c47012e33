// TapTable construction: one classification per (tile, tap, vector).
#include "plan/build_taps.h"

#include <algorithm>
#include <cmath>

namespace sparsert {
namespace {

constexpr int64_t kPadding = -1;

// Offset in the input plane that output column `column` reads for a tap, or kPadding.
int64_t InputOffset(const Window& w, bool transposed, int64_t column, int64_t tap) {
  const int64_t at[2] = {column / w.out[1], column % w.out[1]};
  const int64_t k[2] = {tap / w.kernel[1], tap % w.kernel[1]};
  int64_t in[2];
  for (int d = 0; d < 2; ++d) {
    if (transposed) {
      const int64_t spread = at[d] + w.pad_begin[d] - k[d] * w.dilation[d];
      if (spread < 0 || spread % w.stride[d] != 0) return kPadding;
      in[d] = spread / w.stride[d];
    } else {
      in[d] = at[d] * w.stride[d] - w.pad_begin[d] + k[d] * w.dilation[d];
    }
    if (in[d] < 0 || in[d] >= w.in[d]) return kPadding;
  }
  return in[0] * w.in[1] + in[1];
}

}  // namespace

Tiling MakeTiling(int64_t columns, int lanes, int max_vecs, double preferred_vecs) {
  Tiling t;
  t.lanes = lanes;
  t.vecs = static_cast<int32_t>((columns + lanes - 1) / lanes);
  const int32_t fewest = (t.vecs + max_vecs - 1) / max_vecs;
  const int32_t wanted = static_cast<int32_t>(std::lround(t.vecs / preferred_vecs));
  t.tiles = std::max(1, std::max(fewest, wanted));
  t.tile_vecs = (t.vecs + t.tiles - 1) / t.tiles;
  return t;
}

Status BuildTaps(const Window& window, bool transposed, const Tiling& tiling, Bump* bump,
                 TapTable* table) {
  const int64_t taps = window.kernel[0] * window.kernel[1];
  const int64_t columns = window.out[0] * window.out[1];
  const int64_t plane = window.in[0] * window.in[1];
  if (plane > INT32_MAX / 2 || columns > INT32_MAX / 2 || taps > UINT16_MAX) {
    return Status::Error(StatusCode::kUnsupported,
                         "a convolution over planes of %lld elements with %lld taps is too large",
                         static_cast<long long>(plane), static_cast<long long>(taps));
  }
  const size_t entries = static_cast<size_t>(tiling.tiles) * taps * tiling.tile_vecs;
  TapVec* out = bump->Allocate<TapVec>(entries);
  if (out == nullptr) return Status::OutOfMemory("tap table", entries * sizeof(TapVec));

  // First pass classifies and counts gathers, the second writes their offsets.
  int32_t* gather = nullptr;
  for (int pass = 0; pass < 2; ++pass) {
    int32_t gathered = 0;
    for (int32_t tile = 0; tile < tiling.tiles; ++tile) {
      const int32_t begin = tiling.Begin(tile);
      const int32_t vecs = tiling.Begin(tile + 1) - begin;
      for (int64_t tap = 0; tap < taps; ++tap) {
        TapVec* row = out + (tile * taps + tap) * tiling.tile_vecs;
        TapMode uniform = TapMode::kMixed;
        for (int32_t v = 0; v < vecs; ++v) {
          int64_t offset[16];
          uint32_t mask = 0;
          int64_t step1 = INT64_MIN;
          int64_t step2 = INT64_MIN;
          bool contiguous = true;
          bool stride2 = true;
          for (int l = 0; l < tiling.lanes; ++l) {
            const int64_t column = (static_cast<int64_t>(begin) + v) * tiling.lanes + l;
            offset[l] = column < columns ? InputOffset(window, transposed, column, tap) : kPadding;
            if (offset[l] == kPadding) continue;
            mask |= 1u << l;
            if (step1 == INT64_MIN) {
              step1 = offset[l] - l;
              step2 = offset[l] - 2 * l;
            }
            contiguous &= offset[l] - l == step1;
            stride2 &= offset[l] - 2 * l == step2;
          }
          TapVec& entry = row[v];
          entry.mask = static_cast<uint16_t>(mask);
          if (mask == 0) {
            // Contiguous with an empty mask loads nothing and keeps the tile uniform.
            entry.mode = TapMode::kContiguous;
          } else if (contiguous) {
            entry.mode = TapMode::kContiguous;
            entry.base = static_cast<int32_t>(step1);
          } else if (stride2) {
            entry.mode = TapMode::kStride2;
            entry.base = static_cast<int32_t>(step2);
          } else {
            entry.mode = TapMode::kGather;
            entry.base = gathered;
            if (gather != nullptr) {
              for (int l = 0; l < tiling.lanes; ++l) {
                gather[gathered + l] =
                    offset[l] == kPadding ? 0 : static_cast<int32_t>(offset[l]);
              }
            }
            gathered += tiling.lanes;
          }
          if (v == 0) uniform = entry.mode;
          if (entry.mode != uniform) uniform = TapMode::kMixed;
        }
        row[0].uniform = uniform;
      }
    }
    if (gathered == 0) break;
    if (pass == 0) {
      gather = bump->Allocate<int32_t>(gathered);
      if (gather == nullptr) return Status::OutOfMemory("tap table", gathered * sizeof(int32_t));
    }
  }
  table->entries = out;
  table->gather = gather;
  table->taps = static_cast<int32_t>(taps);
  table->tile_vecs = tiling.tile_vecs;
  return Status::Ok();
}

}  // namespace sparsert
