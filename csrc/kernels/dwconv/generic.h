// dwconv over Vec. Included once per instruction set, after its vec_*.h, with SRT_ISA defined.
#pragma once

#include "kernels/dwconv/dwconv.h"
#include "kernels/dwconv/rows.h"
#include "kernels/dwconv/windows.h"
#include "kernels/spmm/load_tap.h"
#include "kernels/spmm/tile.h"

namespace sparsert {
namespace SRT_ISA {
namespace {

template <int NV>
void DwconvTile(const DwconvArgs& a, int tile, const float* x, const float* w, const SpmmTile& t) {
  const TapVec* tap = a.taps.entries + static_cast<size_t>(tile) * a.taps.taps * a.taps.tile_vecs;
  Vec acc[NV];
  BeginRow<NV>(t, 0, acc);
  for (int k = 0; k < a.taps.taps; ++k, tap += a.taps.tile_vecs) {
    const Vec wv = Set1(w[k]);
    if (tap->uniform == TapMode::kContiguous) {
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v) {
        acc[v] = Fma(wv, LoadMask(x + tap[v].base, MaskFromBits(tap[v].mask)), acc[v]);
      }
    } else if (tap->uniform == TapMode::kStride2) {
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v) {
        acc[v] = Fma(wv, LoadStride2Mask(x + tap[v].base, MaskFromBits(tap[v].mask)), acc[v]);
      }
    } else {
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v) acc[v] = Fma(wv, LoadTap(x, tap[v], a.taps), acc[v]);
    }
  }
  EndRow<NV>(t, 0, acc);
}

// Calls rows(channel, plane, range of output rows) for each work item.
template <typename Rows>
SRT_INLINE void DwconvPlanes(const DwconvArgs& a, void* const* io, int64_t begin, int64_t end,
                             const Rows& rows) {
  const int64_t taps = a.kernel_h * a.kernel_w;
  for (int64_t item = begin; item < end;) {
    const int64_t image = item / a.channels / a.bands;
    const int64_t band = item / a.channels % a.bands;
    const int64_t first = item % a.channels;
    const int64_t last = first + end - item < a.channels ? first + end - item : a.channels;
    item += last - first;
    const RowRange range = {band * a.out_h / a.bands, (band + 1) * a.out_h / a.bands};
    DwconvPlane plane;
    plane.x =
        static_cast<const float*>(io[0]) + image * a.x_image + first / a.multiplier * a.x_plane;
    plane.w = a.weights + first * taps;
    plane.r = io[1] == nullptr
                  ? nullptr
                  : static_cast<const float*>(io[1]) + image * a.r_image + first * a.r_plane;
    plane.y = static_cast<float*>(io[2]) + image * a.y_image + first * a.y_plane;
    int64_t sharing = first % a.multiplier;  // which of the channels that read this input
    for (int64_t channel = first; channel < last; ++channel) {
      rows(plane, range, a.bias == nullptr ? 0.0f : a.bias[channel]);
      if (++sharing == a.multiplier) {
        sharing = 0;
        plane.x += a.x_plane;
      }
      plane.w += taps;
      if (plane.r != nullptr) plane.r += a.r_plane;
      plane.y += a.y_plane;
    }
  }
}

template <int K, int S>
void DwconvRows(const DwconvArgs& a, void* const* io, int64_t begin, int64_t end) {
  const ColumnVecs<K, S> vecs(a, io[1] == io[2]);
  DwconvPlanes(a, io, begin, end, [&](const DwconvPlane& plane, RowRange range, float bias) {
    DwconvPlaneRows<K, S>(a, range, vecs, plane, bias);
  });
}

template <int S>
void DwconvWindows(const DwconvArgs& a, void* const* io, int64_t begin, int64_t end) {
  const bool in_place = io[1] == io[2];
  DwconvPlanes(a, io, begin, end, [&](const DwconvPlane& plane, RowRange range, float bias) {
    WindowRows<S>(a, range, in_place, plane, bias);
  });
}

void DwconvByRows(const DwconvArgs& a, void* const* io, int64_t begin, int64_t end) {
  const bool dense = a.stride_w == 1;
  const bool square = a.kernel_h == a.kernel_w && a.dilation_h == 1 && a.dilation_w == 1;
  if (square && a.kernel_h == 3) {
    return dense ? DwconvRows<3, 1>(a, io, begin, end) : DwconvRows<3, 2>(a, io, begin, end);
  }
  if (square && a.kernel_h == 5) {
    return dense ? DwconvRows<5, 1>(a, io, begin, end) : DwconvRows<5, 2>(a, io, begin, end);
  }
  return dense ? DwconvWindows<1>(a, io, begin, end) : DwconvWindows<2>(a, io, begin, end);
}

}  // namespace

void DwconvDense(const void* args, void* const* io, int64_t begin, int64_t end, void* scratch);
void DwconvDense(const void* args, void* const* io, int64_t begin, int64_t end, void*) {
  const DenormalsAreZero guard;
  const DwconvArgs& a = *static_cast<const DwconvArgs*>(args);
  if (a.by_rows) return DwconvByRows(a, io, begin, end);
  for (int64_t item = begin; item < end; ++item) {
    const int64_t image = item / a.channels;
    const int64_t channel = item % a.channels;
    const float* x =
        static_cast<const float*>(io[0]) + image * a.x_image + channel / a.multiplier * a.x_plane;
    const float* w = a.weights + channel * a.taps.taps;
    SpmmTile t;
    t.r_row = t.y_row = 0;
    t.bias = a.bias == nullptr ? nullptr : a.bias + channel;
    t.first = t.last = true;
    t.act = a.act;
    for (int tile = 0; tile < a.tiles; ++tile) {
      const int64_t vec_begin = static_cast<int64_t>(tile) * a.vecs / a.tiles;
      const int vecs = static_cast<int>((tile + 1LL) * a.vecs / a.tiles - vec_begin);
      const int64_t column = vec_begin * Vec::kLanes;
      const int64_t left = a.columns - column;
      t.partial = left < static_cast<int64_t>(vecs) * Vec::kLanes;
      t.tail = FirstN(t.partial ? static_cast<int>(left - (vecs - 1) * Vec::kLanes) : Vec::kLanes);
      t.y = static_cast<float*>(io[2]) + image * a.y_image + channel * a.y_plane + column;
      t.r = io[1] == nullptr ? nullptr
                             : static_cast<const float*>(io[1]) + image * a.r_image +
                                   channel * a.r_plane + column;
      switch (vecs) {
        case 1:
          DwconvTile<1>(a, tile, x, w, t);
          break;
        case 2:
          DwconvTile<2>(a, tile, x, w, t);
          break;
        case 3:
          DwconvTile<3>(a, tile, x, w, t);
          break;
        default:
          DwconvTile<4>(a, tile, x, w, t);
          break;
      }
    }
  }
}

}  // namespace SRT_ISA
}  // namespace sparsert
