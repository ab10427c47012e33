// spmv over Vec. Included once per instruction set, after its vec_*.h, with SRT_ISA defined.
#pragma once

#include "kernels/spmv/spmv.h"
#include "simd/vec_math.h"

namespace sparsert {
namespace SRT_ISA {
namespace {

inline Vec SellSlice(const PackedSlices& m, int slice, const float* x, Vec sum) {
  Vec odd = Zero();
  for (int block = 0; block < m.col_blocks; ++block) {
    const size_t at = static_cast<size_t>(block) * m.slices + slice;
    const uint32_t width = m.widths[at];
    const uint32_t whole = m.wholes[at];
    const uint16_t* id = m.ids + m.offsets[at] * Vec::kLanes;
    const float* w = m.values + m.offsets[at] * Vec::kLanes;
    const float* xb = x + block * kSpmvColBlock;
    uint32_t j = 0;
    for (; j + 2 <= whole; j += 2) {
      sum = Fma(LoadU(w), GatherU16(xb, id), sum);
      odd = Fma(LoadU(w + Vec::kLanes), GatherU16(xb, id + Vec::kLanes), odd);
      w += 2 * Vec::kLanes;
      id += 2 * Vec::kLanes;
    }
    // Padding leaves x out whatever it is: 0 * infinity would spoil rows that do not use it.
    for (; j < width; ++j) {
      const Vec weights = LoadU(w);
      sum = Fma(weights, Select(Equal(weights, Zero()), Zero(), GatherU16(xb, id)), sum);
      w += Vec::kLanes;
      id += Vec::kLanes;
    }
  }
  return Add(sum, odd);
}

inline Vec DenseSlice(const PackedSlices& m, int slice, const float* x, Vec sum) {
  const float* w = m.values + static_cast<size_t>(slice) * m.cols * Vec::kLanes;
  Vec acc[4] = {sum, Zero(), Zero(), Zero()};
  int k = 0;
  for (; k + 4 <= m.cols; k += 4) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      acc[i] = Fma(Set1(x[k + i]), LoadU(w + i * Vec::kLanes), acc[i]);
    }
    w += 4 * Vec::kLanes;
  }
  for (; k < m.cols; ++k, w += Vec::kLanes) acc[0] = Fma(Set1(x[k]), LoadU(w), acc[0]);
  return Add(Add(acc[0], acc[1]), Add(acc[2], acc[3]));
}

template <bool kSparse>
void RunSpmv(const void* args, void* const* io, int64_t begin, int64_t end) {
  const SpmvArgs& a = *static_cast<const SpmvArgs*>(args);
  const PackedSlices& m = a.weights;
  for (int64_t item = begin; item < end; ++item) {
    const int64_t vector = item / a.chunks;
    const int64_t chunk = item % a.chunks;
    const float* x = static_cast<const float*>(io[0]) + vector * a.x_row;
    const float* r =
        io[1] == nullptr ? nullptr : static_cast<const float*>(io[1]) + vector * a.r_row;
    float* y = static_cast<float*>(io[2]) + vector * a.y_row;
    const int slice_end = static_cast<int>((chunk + 1) * m.slices / a.chunks);
    for (int slice = static_cast<int>(chunk * m.slices / a.chunks); slice < slice_end; ++slice) {
      const uint32_t* row_of = m.row_of + static_cast<size_t>(slice) * Vec::kLanes;
      Vec sum =
          m.bias == nullptr ? Zero() : LoadU(m.bias + static_cast<size_t>(slice) * Vec::kLanes);
      sum = kSparse ? SellSlice(m, slice, x, sum) : DenseSlice(m, slice, x, sum);
      float lane[Vec::kLanes];
      if (r != nullptr) {
        for (int l = 0; l < Vec::kLanes; ++l) {
          lane[l] = row_of[l] < static_cast<uint32_t>(m.rows) ? r[row_of[l]] : 0.0f;
        }
        sum = Add(sum, LoadU(lane));
      }
      ApplyActivation(a.act, &sum, 1);
      StoreU(lane, sum);
      for (int l = 0; l < Vec::kLanes; ++l) {
        if (row_of[l] < static_cast<uint32_t>(m.rows)) y[row_of[l]] = lane[l];
      }
    }
  }
}

}  // namespace

void SpmvDense(const void* args, void* const* io, int64_t begin, int64_t end, void* scratch);
void SpmvDense(const void* args, void* const* io, int64_t begin, int64_t end, void*) {
  RunSpmv<false>(args, io, begin, end);
}

void SpmvSell(const void* args, void* const* io, int64_t begin, int64_t end, void* scratch);
void SpmvSell(const void* args, void* const* io, int64_t begin, int64_t end, void*) {
  RunSpmv<true>(args, io, begin, end);
}

}  // namespace SRT_ISA
}  // namespace sparsert
