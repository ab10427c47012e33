// TapTable construction: one classification per (tile, tap, vector).
#include "plan/build_taps.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace sparsert {
namespace {

constexpr int64_t kPadding = -1;

// Offset in the input plane that output column `column` reads for a tap, or kPadding.
int64_t InputOffset(const Window& w, bool transposed, const PhaseLayout& layout, int64_t column,
                    int64_t tap) {
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
  return layout.Offset(in[0], in[1]);
}

// More runs than this cost more than a gather.
constexpr int kMaxSegments = 4;

// Cuts the lanes with an offset into runs of step 1 or 2. Returns their number, or
// kMaxSegments + 1 when there are more.
int FindSegments(const int64_t* offset, int lanes, TapSegment* segments) {
  int count = 0;
  int l = 0;
  while (l < lanes) {
    if (offset[l] == kPadding) {
      ++l;
      continue;
    }
    if (count == kMaxSegments) return kMaxSegments + 1;
    int next = l + 1;
    while (next < lanes && offset[next] == kPadding) ++next;
    const int64_t step = next < lanes && offset[next] - offset[l] == 2 * (next - l) ? 2 : 1;
    TapSegment segment = {};
    segment.step = static_cast<uint8_t>(step);
    segment.base = static_cast<int32_t>(offset[l] - step * l);
    for (; l < lanes; ++l) {
      if (offset[l] == kPadding) continue;
      if (offset[l] - step * l != segment.base) break;
      segment.mask |= static_cast<uint16_t>(1u << l);
    }
    segments[count++] = segment;
  }
  return count;
}

// A vector of lanes that lie close together, picked from two vectors.
struct PickTap {
  bool fits = false;
  int32_t base = 0;
  int32_t index[kPickLanes] = {};
};

PickTap FindPick(const int64_t* offset, int lanes, int64_t plane) {
  PickTap w;
  if (lanes != kPickLanes || plane < kPickFloats) return w;
  int64_t low = plane;
  int64_t high = 0;
  for (int l = 0; l < lanes; ++l) {
    if (offset[l] == kPadding) continue;
    low = std::min(low, offset[l]);
    high = std::max(high, offset[l]);
  }
  // Whole cache lines where they do: planes begin at one.
  int64_t base = low / kPickLanes * kPickLanes;
  if (high >= base + kPickFloats) base = low;
  base = std::min(base, plane - kPickFloats);
  w.fits = high < base + kPickFloats;
  w.base = static_cast<int32_t>(base);
  for (int l = 0; w.fits && l < lanes; ++l) {
    w.index[l] = offset[l] == kPadding ? 0 : static_cast<int32_t>(offset[l] - base);
  }
  return w;
}

// Appends an index to `gather` unless it is one of the last there; `table` gets its place.
Status AppendIndex(const PickTap& w, Array<int32_t>* gather, int32_t* table) {
  constexpr size_t kLast = 64;
  const size_t size = gather->size();
  for (size_t back = 1; back <= kLast && back * kPickLanes <= size; ++back) {
    const size_t at = size - back * kPickLanes;
    if (memcmp(gather->data() + at, w.index, sizeof(w.index)) != 0) continue;
    *table = static_cast<int32_t>(at);
    return Status::Ok();
  }
  *table = static_cast<int32_t>(size);
  return gather->append(w.index, kPickLanes);
}

}  // namespace

Tiling MakeTiling(int64_t columns, int lanes, int max_vecs, double preferred_vecs) {
  Tiling t;
  t.lanes = lanes;
  t.vecs = static_cast<int32_t>((columns + lanes - 1) / lanes);
  const int32_t fewest = (t.vecs + max_vecs - 1) / max_vecs;
  const int32_t wanted = static_cast<int32_t>(std::lround(t.vecs / preferred_vecs));
  SetTiles(std::max(fewest, wanted), &t);
  return t;
}

void SetTiles(int32_t tiles, Tiling* tiling) {
  tiling->tiles = std::max(1, std::min(tiles, tiling->vecs));
  tiling->tile_vecs = (tiling->vecs + tiling->tiles - 1) / tiling->tiles;
}

PhaseLayout PlaneLayout(const Window& w, bool phased) {
  if (phased) return LayOutPhases(w.in[0], w.in[1], w.stride[0], w.stride[1]);
  PhaseLayout plane;
  plane.row = w.in[1];
  plane.phase = w.in[0] * w.in[1];
  return plane;
}

Status BuildTaps(const Window& window, bool transposed, const PhaseLayout& layout,
                 const Tiling& tiling, Bump* bump, TapTable* table) {
  const int64_t taps = window.kernel[0] * window.kernel[1];
  const int64_t columns = window.out[0] * window.out[1];
  const int64_t plane = layout.floats();
  if (plane > INT32_MAX / 2 || columns > INT32_MAX / 2 || taps - 1 > UINT16_MAX) {
    return Status::Error(StatusCode::kUnsupported,
                         "a convolution over planes of %lld elements with %lld taps is too large",
                         static_cast<long long>(plane), static_cast<long long>(taps));
  }
  const size_t entries = static_cast<size_t>(tiling.tiles) * taps * tiling.tile_vecs;
  TapVec* out = bump->Allocate<TapVec>(entries);
  if (out == nullptr) return Status::OutOfMemory("tap table", entries * sizeof(TapVec));

  Array<TapSegment> segments(bump->allocator());
  Array<int32_t> gather(bump->allocator());
  for (int32_t tile = 0; tile < tiling.tiles; ++tile) {
    const int32_t begin = tiling.Begin(tile);
    const int32_t vecs = tiling.Begin(tile + 1) - begin;
    const size_t collected = segments.size_bytes() + gather.size_bytes();
    if (!bump->Fits(collected)) return Status::OutOfMemory("tap table", collected);
    for (int64_t tap = 0; tap < taps; ++tap) {
      TapVec* row = out + (tile * taps + tap) * tiling.tile_vecs;
      auto find_offsets = [&](int32_t v, int64_t* offset) {
        uint32_t mask = 0;
        for (int l = 0; l < tiling.lanes; ++l) {
          const int64_t column = (static_cast<int64_t>(begin) + v) * tiling.lanes + l;
          offset[l] =
              column < columns ? InputOffset(window, transposed, layout, column, tap) : kPadding;
          if (offset[l] != kPadding) mask |= 1u << l;
        }
        return mask;
      };
      // Picked where one load is not enough for a vector, and two are for all.
      bool picks = true;
      bool one_load = true;
      for (int32_t v = 0; v < vecs && picks; ++v) {
        int64_t offset[16];
        find_offsets(v, offset);
        TapSegment found[kMaxSegments];
        const int count = FindSegments(offset, tiling.lanes, found);
        one_load = one_load && (count == 0 || (count == 1 && found[0].step == 1));
        picks = FindPick(offset, tiling.lanes, plane).fits;
      }
      picks = picks && !one_load;
      for (int32_t v = 0; v < vecs; ++v) {
        int64_t offset[16];
        const uint32_t mask = find_offsets(v, offset);
        TapSegment found[kMaxSegments];
        const int count = FindSegments(offset, tiling.lanes, found);
        TapVec& entry = row[v];
        entry.mask = static_cast<uint16_t>(mask);
        if (picks) {
          const PickTap w = FindPick(offset, tiling.lanes, plane);
          entry.mode = TapMode::kPick;
          entry.base = w.base;
          SRT_RETURN_IF_ERROR(AppendIndex(w, &gather, &entry.table));
        } else if (count <= 1) {
          // An empty mask loads nothing: contiguous keeps the tile uniform.
          entry.mode = count == 1 && found[0].step == 2 ? TapMode::kStride2 : TapMode::kContiguous;
          entry.base = count == 1 ? found[0].base : 0;
        } else if (count <= kMaxSegments) {
          entry.mode = TapMode::kSegments;
          entry.table = static_cast<int32_t>(segments.size());
          found[count - 1].last = true;
          SRT_RETURN_IF_ERROR(segments.append(found, count));
        } else {
          entry.mode = TapMode::kGather;
          entry.table = static_cast<int32_t>(gather.size());
          for (int l = 0; l < tiling.lanes; ++l) {
            SRT_RETURN_IF_ERROR(
                gather.push_back(offset[l] == kPadding ? 0 : static_cast<int32_t>(offset[l])));
          }
        }
        row[0].uniform = v == 0 || entry.mode == row[0].uniform ? entry.mode : TapMode::kMixed;
      }
    }
  }
  if (segments.size() > INT32_MAX || gather.size() > INT32_MAX) {
    return Status::Error(StatusCode::kUnsupported, "a convolution's tap table is too large");
  }
  TapSegment* kept_segments = bump->Allocate<TapSegment>(segments.size());
  int32_t* kept_gather = bump->Allocate<int32_t>(gather.size());
  if (kept_segments == nullptr || kept_gather == nullptr) {
    return Status::OutOfMemory("tap table", segments.size_bytes() + gather.size_bytes());
  }
  if (!segments.empty()) memcpy(kept_segments, segments.data(), segments.size_bytes());
  if (!gather.empty()) memcpy(kept_gather, gather.data(), gather.size_bytes());
  table->entries = out;
  table->segments = kept_segments;
  table->gather = kept_gather;
  table->taps = static_cast<int32_t>(taps);
  table->tile_vecs = tiling.tile_vecs;
  return Status::Ok();
}

}  // namespace sparsert
