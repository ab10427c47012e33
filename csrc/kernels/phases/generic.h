// phases over Vec. Included once per instruction set, after its vec_*.h, with SRT_ISA defined.
#pragma once

#include "kernels/define.h"
#include "kernels/phases/phases.h"

namespace sparsert {
namespace SRT_ISA {

// Vectors are stored whole: what lies behind the end of a row belongs to rows of the phase that are
// written later, or to the room behind the last one.
struct PhaseRow {
  const float* x;
  int64_t width;  // of x
  float* y;       // the row of the first phase
  int64_t phase;  // floats to the next phase
  uint32_t used;
};

SRT_INLINE Vec LoadColumns(const PhaseRow& r, int64_t at) {
  const int64_t left = r.width - at;
  if (left >= Vec::kLanes) return LoadU(r.x + at);
  return LoadMask(r.x + at, FirstN(left < 0 ? 0 : static_cast<int>(left)));
}

SRT_INLINE void StorePhase(const PhaseRow& r, int phase, int64_t at, Vec v) {
  if ((r.used >> phase & 1) != 0) StoreU(r.y + phase * r.phase + at, v);
}

SRT_INLINE void SplitByTwo(const PhaseRow& r) {
  for (int64_t i = 0; i < r.width; i += 2 * Vec::kLanes) {
    const Vec a = LoadColumns(r, i);
    const Vec b = LoadColumns(r, i + Vec::kLanes);
    StorePhase(r, 0, i / 2, Evens(a, b));
    StorePhase(r, 1, i / 2, Odds(a, b));
  }
}

SRT_INLINE void SplitByFour(const PhaseRow& r) {
  for (int64_t i = 0; i < r.width; i += 4 * Vec::kLanes) {
    const Vec a = LoadColumns(r, i);
    const Vec b = LoadColumns(r, i + Vec::kLanes);
    const Vec c = LoadColumns(r, i + 2 * Vec::kLanes);
    const Vec d = LoadColumns(r, i + 3 * Vec::kLanes);
    const Vec even_ab = Evens(a, b);
    const Vec even_cd = Evens(c, d);
    const Vec odd_ab = Odds(a, b);
    const Vec odd_cd = Odds(c, d);
    StorePhase(r, 0, i / 4, Evens(even_ab, even_cd));
    StorePhase(r, 1, i / 4, Evens(odd_ab, odd_cd));
    StorePhase(r, 2, i / 4, Odds(even_ab, even_cd));
    StorePhase(r, 3, i / 4, Odds(odd_ab, odd_cd));
  }
}

// `index`: of the lanes, in steps of the stride.
SRT_INLINE void SplitByAny(const PhaseRow& r, int64_t stride, const int32_t* index) {
  for (int64_t phase = 0; phase < stride && phase < r.width; ++phase) {
    if ((r.used >> phase & 1) == 0) continue;
    const int64_t n = (r.width - phase + stride - 1) / stride;
    const float* x = r.x + phase;
    float* y = r.y + phase * r.phase;
    for (int64_t i = 0; i < n; i += Vec::kLanes) {
      const int64_t left = n - i;
      const Mask mask = FirstN(left < Vec::kLanes ? static_cast<int>(left) : Vec::kLanes);
      StoreU(y + i, GatherMask(x + i * stride, index, mask));
    }
  }
}

static void Phases(const void* args_block, void* const* io, int64_t begin, int64_t end, void*) {
  const PhasesArgs& a = *static_cast<const PhasesArgs*>(args_block);
  const PhaseLayout& to = a.layout;
  int32_t index[Vec::kLanes];
  for (int32_t l = 0; l < Vec::kLanes; ++l) index[l] = l * static_cast<int32_t>(to.stride_w);
  for (int64_t p = begin; p < end; ++p) {
    const float* x =
        static_cast<const float*>(io[0]) + p / a.channels * a.x_image + p % a.channels * a.x_plane;
    float* y = static_cast<float*>(io[1]) + p * a.y_plane;
    for (int64_t ih = 0; ih < a.in_h; ++ih, x += a.in_w) {
      const int64_t phase_h = ih % to.stride_h;
      if ((a.used_h >> phase_h & 1) == 0) continue;
      const PhaseRow row = {x, a.in_w,
                            y + phase_h * to.stride_w * to.phase + ih / to.stride_h * to.row,
                            to.phase, a.used_w};
      if (to.stride_w == 2) {
        SplitByTwo(row);
      } else if (to.stride_w == 4) {
        SplitByFour(row);
      } else {
        SplitByAny(row, to.stride_w, index);
      }
    }
  }
}

}  // namespace SRT_ISA
}  // namespace sparsert
