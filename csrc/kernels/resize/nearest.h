// Nearest resize row by row: a row of y is made once, for all rows that show the same row of x.
// Included once per instruction set, after its vec_*.h, with SRT_ISA defined.
#pragma once

#include <cstring>

#include "kernels/resize/bands.h"
#include "kernels/resize/resize.h"
#include "kernels/resize/window.h"

namespace sparsert {
namespace SRT_ISA {

// `rows` equal rows of y from one of x, whose index climbs by one element at most: a vector of y
// shows no more than a vector of x.
SRT_INLINE void PickRow(const ResizeArgs& args, const float* x, float* y, int64_t rows) {
  constexpr int kLanes = Vec::kLanes;
  const int64_t n = args.out[1];
  const int32_t* index = args.index[args.rank - 1];
  if (n < kLanes) {
    const int columns = static_cast<int>(n);
    const Mask tail = FirstN(columns);
    int32_t first = index[0];
    const Vec from = LoadWindow(x, args.in[1], &first);
    const Vec v = PickLanes(from, index, first);
    for (int64_t r = 0; r < rows; ++r, y += args.y_row) StoreFirst(y, columns, tail, v);
    return;
  }
  for (int64_t i = 0; i < n; i += kLanes) {
    if (i > n - kLanes) i = n - kLanes;  // the last vector overlaps the one before
    int32_t first = index[i];
    const Vec from = LoadWindow(x, args.in[1], &first);
    const Vec v = PickLanes(from, index + i, first);
    float* to = y + i;
    StoreU(to, v);
    if (rows > 1) StoreU(to + args.y_row, v);
    for (int64_t r = 2; r < rows; ++r) StoreU(to + r * args.y_row, v);
  }
}

template <typename T>
SRT_INLINE void CopyRow(const ResizeArgs& args, const T* x, T* y) {
  const int64_t n = args.out[1];
  const int64_t x_step = args.x_strides[args.rank - 1];
  const int64_t y_step = args.y_strides[args.rank - 1];
  const int32_t* index = args.index[args.rank - 1];
  if (args.columns == ResizeColumns::kSame) {
    memcpy(y, x, static_cast<size_t>(n) * sizeof(T));
  } else if (args.columns == ResizeColumns::kTwice) {
    for (int64_t i = 0; i < n / 2; ++i) y[2 * i] = y[2 * i + 1] = x[i];
  } else if (x_step == 1 && y_step == 1) {
    for (int64_t i = 0; i < n; ++i) y[i] = x[index[i]];
  } else {
    for (int64_t i = 0; i < n; ++i) y[i * y_step] = x[index[i] * x_step];
  }
}

template <typename T>
SRT_INLINE void RepeatRow(const ResizeArgs& args, const T* x, T* y, int64_t rows) {
  CopyRow(args, x, y);
  for (int64_t r = 1; r < rows; ++r) {
    T* to = y + r * args.y_row;
    if (args.y_strides[args.rank - 1] == 1) {
      memcpy(to, y, static_cast<size_t>(args.out[1]) * sizeof(T));
    } else {
      CopyRow(args, x, to);
    }
  }
}

// Rows [first, last) of a plane of y.
template <typename T>
SRT_INLINE void NearestBand(const ResizeArgs& args, const T* x, T* y, int64_t first, int64_t last) {
  const int32_t* index = args.index[args.rank - 2];
  for (int64_t h = first; h < last;) {
    int64_t end = h + 1;
    while (end < last && index[end] == index[h]) ++end;
    const T* from = x + index[h] * args.x_row;
    T* to = y + h * args.y_row;
    bool done = false;
    if constexpr (sizeof(T) == sizeof(float)) {
      done = args.columns >= ResizeColumns::kClimbing;
      if (done) PickRow(args, from, to, end - h);
    }
    if (!done) RepeatRow(args, from, to, end - h);
    h = end;
  }
}

template <typename T>
void NearestBands(const ResizeArgs& args, void* const* io, int64_t begin, int64_t end) {
  const int64_t bands = BandsOf(args);
  for (int64_t item = begin; item < end; ++item) {
    const int64_t first = item % bands * kBandRows;
    const int64_t last = first + kBandRows < args.out[0] ? first + kBandRows : args.out[0];
    int64_t left = item / bands;
    const T* from = static_cast<const T*>(io[0]);
    T* to = static_cast<T*>(io[1]);
    for (int d = args.rank - 3; d >= 0; --d) {
      const int64_t i = left % args.dims[d];
      left /= args.dims[d];
      from += args.index[d][i] * args.x_strides[d];
      to += i * args.y_strides[d];
    }
    NearestBand(args, from, to, first, last);
  }
}

static void ResizeNearest(const void* args_block, void* const* io, int64_t begin, int64_t end,
                          void*) {
  const ResizeArgs& args = *static_cast<const ResizeArgs*>(args_block);
  switch (args.element_bytes) {
    case 1:
      return NearestBands<uint8_t>(args, io, begin, end);
    case 2:
      return NearestBands<uint16_t>(args, io, begin, end);
    case 4:
      return NearestBands<float>(args, io, begin, end);
    default:
      return NearestBands<uint64_t>(args, io, begin, end);
  }
}

}  // namespace SRT_ISA
}  // namespace sparsert
