// Copy over Vec: only transposing gains by an instruction set. Four-byte elements of any type move
// as floats, which loads, shuffles and stores leave alone.
// Included once per instruction set, after its vec_*.h, with SRT_ISA defined.
#pragma once

#include <cstring>

#include "kernels/copy/copy.h"
#include "kernels/define.h"
#include "simd/square.h"

namespace sparsert {
namespace SRT_ISA {
namespace {

template <typename T>
void CopyRow(const T* x, int64_t x_stride, T* y, int64_t y_stride, int64_t n) {
  if (x_stride == 1 && y_stride == 1) {
    memcpy(y, x, static_cast<size_t>(n) * sizeof(T));
  } else if (y_stride == 1 && x_stride == 0) {
    const T value = *x;
    for (int64_t i = 0; i < n; ++i) y[i] = value;
  } else if (y_stride == 1) {
    for (int64_t i = 0; i < n; ++i) y[i] = x[i * x_stride];
  } else {
    for (int64_t i = 0; i < n; ++i) y[i * y_stride] = x[i * x_stride];
  }
}

// y[j * y_stride + i] = x[i * x_stride + j] for i < n, j < count: one square of a tile.
SRT_INLINE void CopySquare(const float* x, int64_t x_stride, float* y, int64_t y_stride, int64_t n,
                           int64_t count) {
  Square s;
  if (n >= Vec::kLanes && count >= Vec::kLanes) {
#pragma GCC unroll 16
    for (int i = 0; i < Vec::kLanes; ++i) s.rows[i] = LoadU(x + i * x_stride);
    Transpose(&s);
#pragma GCC unroll 16
    for (int j = 0; j < Vec::kLanes; ++j) StoreU(y + j * y_stride, s.rows[j]);
    return;
  }
  const int rows = static_cast<int>(n < Vec::kLanes ? n : Vec::kLanes);
  const int columns = static_cast<int>(count < Vec::kLanes ? count : Vec::kLanes);
  const Mask in_row = FirstN(rows);
  const Mask in_column = FirstN(columns);
  for (int i = 0; i < Vec::kLanes; ++i) {
    s.rows[i] = i < rows ? LoadMask(x + i * x_stride, in_column) : Zero();
  }
  Transpose(&s);
  for (int j = 0; j < columns; ++j) StoreMask(y + j * y_stride, in_row, s.rows[j]);
}

// Tiles of a cache line's floats both ways, so that each line is read and written once.
constexpr int64_t kTile = 16;

// y[j * y_stride + i] = x[i * x_stride + j] for i < n, j < count.
template <typename T>
void CopyTile(const T* x, int64_t x_stride, T* y, int64_t y_stride, int64_t n, int64_t count) {
  for (int64_t j = 0; j < count; ++j) {
    for (int64_t i = 0; i < n; ++i) y[j * y_stride + i] = x[i * x_stride + j];
  }
}
inline void CopyTile(const float* x, int64_t x_stride, float* y, int64_t y_stride, int64_t n,
                     int64_t count) {
  for (int64_t i = 0; i < n; i += Vec::kLanes) {
    for (int64_t j = 0; j < count; j += Vec::kLanes) {
      CopySquare(x + i * x_stride + j, x_stride, y + j * y_stride + i, y_stride, n - i, count - j);
    }
  }
}

template <typename T>
void CopyTiles(const T* x, int64_t x_stride, T* y, int64_t y_stride, int64_t n, int64_t count) {
  if (n == 2 && y_stride == 2) {  // two rows interleaved: a form that compilers vectorise
    const T* second = x + x_stride;
    for (int64_t j = 0; j < count; ++j) {
      y[2 * j] = x[j];
      y[2 * j + 1] = second[j];
    }
    return;
  }
  for (int64_t i = 0; i < n; i += kTile) {
    const int64_t rows = n - i < kTile ? n - i : kTile;
    for (int64_t j = 0; j < count; j += kTile) {
      const int64_t columns = count - j < kTile ? count - j : kTile;
      CopyTile(x + i * x_stride + j, x_stride, y + j * y_stride + i, y_stride, rows, columns);
    }
  }
}

template <typename T>
void CopyLoop(const CopyArgs& args, const void* x, void* y, int64_t begin, int64_t end) {
  const T* from = static_cast<const T*>(x);
  T* to = static_cast<T*>(y);
  const Loop<2>& loop = args.loop;
  ForEachRow(loop, begin, end, [&](const int64_t* offsets, int64_t n) {
    if (args.tile_count != 0) {
      CopyTiles(from + offsets[1], loop.row_strides[1], to + offsets[0], args.tile_y_stride, n,
                args.tile_count);
    } else {
      CopyRow(from + offsets[1], loop.row_strides[1], to + offsets[0], loop.row_strides[0], n);
    }
  });
}

void Copy(const void* args_block, void* const* io, int64_t begin, int64_t end, void*) {
  const CopyArgs& args = *static_cast<const CopyArgs*>(args_block);
  switch (args.element_bytes) {
    case 1:
      return CopyLoop<uint8_t>(args, io[0], io[1], begin, end);
    case 2:
      return CopyLoop<uint16_t>(args, io[0], io[1], begin, end);
    case 4:
      return CopyLoop<float>(args, io[0], io[1], begin, end);
    default:
      return CopyLoop<uint64_t>(args, io[0], io[1], begin, end);
  }
}

}  // namespace
}  // namespace SRT_ISA
}  // namespace sparsert
