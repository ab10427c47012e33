// AMX: products of squares of 16 rows by 16 K-rows of four bytes, held in tile registers.
// Include after dot_avx512vnni.h, with SRT_ISA defined.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace sparsert {
namespace SRT_ISA {

// Every register as 16 rows of 64 bytes.
struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

// Tile registers are this thread's from the constructor on, and left empty by the destructor, so
// that no one else has to save them.
class TileRegisters {
 public:
  TileRegisters() {
    static constexpr TileConfig kConfig;
    _tile_loadconfig(&kConfig);
  }
  ~TileRegisters() { _tile_release(); }
  TileRegisters(const TileRegisters&) = delete;
  TileRegisters& operator=(const TileRegisters&) = delete;
};

// What has been stored is in memory when tile registers are loaded: a compiler may not know that
// those read it.
inline void BeforeTileLoads() { __asm__ __volatile__("" ::: "memory"); }

// Weights of a product: 16 rows of 64 bytes each, side by side. (A square of K-rows has a stride.)
constexpr int kSquareBytes = 1024;

// Sums live in registers 0 to 3: rows 0-15 and 16-31 of the first 16 columns, then of the next.
//
// `p`: [rows][16], the same for all columns.
template <bool kMoreRows, bool kMoreColumns>
inline void LoadStarts(const int32_t* p) {
  _tile_loadd(0, p, 64);
  if (kMoreRows) _tile_loadd(1, p + 256, 64);
  if (kMoreColumns) _tile_loadd(2, p, 64);
  if (kMoreRows && kMoreColumns) _tile_loadd(3, p + 256, 64);
}

// `p`: [rows][columns], `row` bytes between rows.
template <bool kMoreRows, bool kMoreColumns>
inline void LoadSums(const int32_t* p, int64_t row) {
  const char* at = reinterpret_cast<const char*>(p);
  _tile_loadd(0, at, row);
  if (kMoreRows) _tile_loadd(1, at + 16 * row, row);
  if (kMoreColumns) _tile_loadd(2, at + 64, row);
  if (kMoreRows && kMoreColumns) _tile_loadd(3, at + 16 * row + 64, row);
}

template <bool kMoreRows, bool kMoreColumns>
inline void StoreSums(int32_t* p, int64_t row) {
  char* at = reinterpret_cast<char*>(p);
  _tile_stored(0, at, row);
  if (kMoreRows) _tile_stored(1, at + 16 * row, row);
  if (kMoreColumns) _tile_stored(2, at + 64, row);
  if (kMoreRows && kMoreColumns) _tile_stored(3, at + 16 * row + 64, row);
}

// Adds the product of one or two squares of signed weights, and 16 K-rows of 16 or 32 columns of
// unsigned bytes, `row` bytes between them.
template <bool kMoreRows, bool kMoreColumns>
inline void AddSquares(const char* w, const char* more_w, const char* x, int64_t row) {
  _tile_loadd(6, x, row);
  _tile_loadd(4, w, 64);
  _tile_dpbsud(0, 4, 6);
  if (kMoreRows) {
    _tile_loadd(5, more_w, 64);
    _tile_dpbsud(1, 5, 6);
  }
  if (kMoreColumns) {
    _tile_loadd(7, x + 64, row);
    _tile_dpbsud(2, 4, 7);
    if (kMoreRows) _tile_dpbsud(3, 5, 7);
  }
}

// Spreads the bytes of a square that are not 0 to where its masks, one per row, have bits. Reads up
// to 64 bytes behind them. Returns their end.
inline const uint8_t* SpreadSquare(const uint64_t* masks, const uint8_t* bytes, char* to) {
#pragma GCC unroll 16
  for (int r = 0; r < 16; ++r) {
    const __m512i row = _mm512_maskz_expand_epi8(masks[r], _mm512_loadu_si512(bytes));
    _mm512_store_si512(to + 64 * r, row);
    bytes += __builtin_popcountll(masks[r]);
  }
  return bytes;
}

}  // namespace SRT_ISA
}  // namespace sparsert
