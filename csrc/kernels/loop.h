// Loop: one walk over several strided tensors of the same (broadcast) shape, in rows.
#pragma once

#include <cstdint>

#include "base/arch.h"
#include "base/tensor_desc.h"

namespace sparsert {

// A row is a run of the innermost dimension; `dims` are the dimensions around it, outermost first.
// Long rows are cut into chunks, so that threads can share them: an item is a chunk of a row.
template <int K>
struct Loop {
  int rank;                      // of the outer dimensions
  int64_t dims[kMaxRank];        // [rank]
  int64_t strides[K][kMaxRank];  // [operand][rank], elements; 0 where an operand is broadcast
  int64_t row;                   // elements of a row
  int64_t row_strides[K];
  int64_t rows;    // product of dims
  int64_t chunk;   // elements of an item (the last of a row may have fewer)
  int64_t chunks;  // items of a row
};

constexpr int64_t kRowChunk = 16384;

// Items of about this many elements.
template <int K>
static inline void SetChunk(Loop<K>* loop, int64_t elements) {
  loop->chunk = elements < 1 ? 1 : elements > loop->row ? loop->row : elements;
  loop->chunks = loop->row == 0 ? 0 : (loop->row + loop->chunk - 1) / loop->chunk;
}

// Drops dimensions of size 1, puts the others in falling order of operand 0's strides and merges
// those that all operands walk with one stride. `strides[k]`: [shape.rank] of operand k. With
// `unit_rows` every row stride becomes 0 or 1, if need be with rows of one element.
template <int K>
static inline Loop<K> MakeLoop(const Shape& shape, const int64_t* const (&strides)[K],
                               bool unit_rows) {
  Loop<K> loop = {};
  int64_t dims[kMaxRank + 1];
  int64_t merged[K][kMaxRank + 1];
  int order[kMaxRank];
  int used = 0;
  for (int d = 0; d < shape.rank; ++d) {
    if (shape.dims[d] == 1) continue;
    int at = used++;
    for (; at > 0 && strides[0][order[at - 1]] < strides[0][d]; --at) order[at] = order[at - 1];
    order[at] = d;
  }
  int n = 0;
  for (int i = 0; i < used; ++i) {
    const int d = order[i];
    const int64_t size = shape.dims[d];
    bool joins = n > 0;
    for (int k = 0; k < K && joins; ++k) joins = merged[k][n - 1] == strides[k][d] * size;
    if (joins) {
      dims[n - 1] *= size;
    } else {
      dims[n++] = size;
    }
    for (int k = 0; k < K; ++k) merged[k][n - 1] = strides[k][d];
  }
  bool unit = n > 0;
  for (int k = 0; k < K && unit; ++k) {
    unit = !unit_rows || merged[k][n - 1] == 0 || merged[k][n - 1] == 1;
  }
  if (!unit) {
    dims[n] = 1;
    for (int k = 0; k < K; ++k) merged[k][n] = 1;
    ++n;
  }
  loop.rank = n - 1;
  loop.rows = 1;
  for (int d = 0; d < n - 1; ++d) {
    loop.dims[d] = dims[d];
    loop.rows *= dims[d];
    for (int k = 0; k < K; ++k) loop.strides[k][d] = merged[k][d];
  }
  loop.row = dims[n - 1];
  for (int k = 0; k < K; ++k) loop.row_strides[k] = merged[k][n - 1];
  SetChunk(&loop, kRowChunk);
  return loop;
}

template <int K>
static inline int64_t LoopItems(const Loop<K>& loop) {
  return loop.rows * loop.chunks;
}

// Strides with which a tensor is read under numpy broadcasting to `shape`: aligned at the last
// dimension, 0 where the tensor has size 1. `out`: [shape.rank].
static inline void BroadcastStrides(const TensorDesc& x, const Shape& shape, int64_t* out) {
  for (int d = 0; d < shape.rank; ++d) {
    const int from = d - (shape.rank - x.shape.rank);
    const bool repeats = from < 0 || (x.shape.dims[from] == 1 && shape.dims[d] != 1);
    out[d] = repeats ? 0 : x.strides[from];
  }
}

// y = fn(a, b) with numpy broadcasting; operands y, a, b.
static inline Loop<3> MakeBroadcastLoop(const TensorDesc& a, const TensorDesc& b,
                                        const TensorDesc& y, bool unit_rows) {
  int64_t a_strides[kMaxRank];
  int64_t b_strides[kMaxRank];
  BroadcastStrides(a, y.shape, a_strides);
  BroadcastStrides(b, y.shape, b_strides);
  return MakeLoop<3>(y.shape, {y.strides, a_strides, b_strides}, unit_rows);
}

// Calls body(offsets, n) for every row or part of a row in items [begin, end): `offsets[k]` is the
// element offset of operand k, `n` the number of elements.
template <int K, typename Body>
SRT_INLINE void ForEachRow(const Loop<K>& loop, int64_t begin, int64_t end, Body&& body) {
  if (begin >= end) return;
  int64_t index[kMaxRank];
  int64_t base[K] = {};
  int64_t row = begin / loop.chunks;
  int64_t chunk = begin % loop.chunks;
  for (int d = loop.rank - 1; d >= 0; --d) {
    index[d] = row % loop.dims[d];
    row /= loop.dims[d];
    for (int k = 0; k < K; ++k) base[k] += index[d] * loop.strides[k][d];
  }
  for (int64_t item = begin; item < end;) {
    int64_t last = chunk + (end - item);
    if (last > loop.chunks) last = loop.chunks;
    const int64_t start = chunk * loop.chunk;
    const int64_t stop = last == loop.chunks ? loop.row : last * loop.chunk;
    int64_t offsets[K];
    for (int k = 0; k < K; ++k) offsets[k] = base[k] + start * loop.row_strides[k];
    body(offsets, stop - start);
    item += last - chunk;
    chunk = 0;
    for (int d = loop.rank - 1; d >= 0; --d) {
      for (int k = 0; k < K; ++k) base[k] += loop.strides[k][d];
      if (++index[d] < loop.dims[d]) break;
      index[d] = 0;
      for (int k = 0; k < K; ++k) base[k] -= loop.strides[k][d] * loop.dims[d];
    }
  }
}

}  // namespace sparsert
