// AMX: products of squares held in tile registers: 16 rows by 16 K-rows of four bytes, or by 32
// K-rows of floats in pieces.
// Include after vec_avx512.h, with SRT_ISA defined.
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
inline void LoadStarts(const void* p) {
  const char* at = static_cast<const char*>(p);
  _tile_loadd(0, at, 64);
  if (kMoreRows) _tile_loadd(1, at + 1024, 64);
  if (kMoreColumns) _tile_loadd(2, at, 64);
  if (kMoreRows && kMoreColumns) _tile_loadd(3, at + 1024, 64);
}

template <bool kMoreRows, bool kMoreColumns>
inline void ZeroSums() {
  _tile_zero(0);
  if (kMoreRows) _tile_zero(1);
  if (kMoreColumns) _tile_zero(2);
  if (kMoreRows && kMoreColumns) _tile_zero(3);
}

// `p`: [rows][columns], `row` bytes between rows.
template <bool kMoreRows, bool kMoreColumns>
inline void LoadSums(const void* p, int64_t row) {
  const char* at = static_cast<const char*>(p);
  _tile_loadd(0, at, row);
  if (kMoreRows) _tile_loadd(1, at + 16 * row, row);
  if (kMoreColumns) _tile_loadd(2, at + 64, row);
  if (kMoreRows && kMoreColumns) _tile_loadd(3, at + 16 * row + 64, row);
}

template <bool kMoreRows, bool kMoreColumns>
inline void StoreSums(void* p, int64_t row) {
  char* at = static_cast<char*>(p);
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

// The next bytes, to where the mask has bits; the others are 0. Reads 64 bytes.
inline Vec SpreadBytes(uint64_t mask, const uint8_t* bytes) {
  return {_mm512_castsi512_ps(_mm512_maskz_expand_epi8(mask, _mm512_loadu_si512(bytes)))};
}

// Spreads the bytes of a square that are not 0 to where its masks, one per row, have bits. Reads up
// to 64 bytes behind them. Returns their end.
inline const uint8_t* SpreadSquare(const uint64_t* masks, const uint8_t* bytes, char* to) {
#pragma GCC unroll 16
  for (int r = 0; r < 16; ++r) {
    _mm512_store_ps(to + 64 * r, SpreadBytes(masks[r], bytes).v);
    bytes += __builtin_popcountll(masks[r]);
  }
  return bytes;
}

// A float is the sum of three pieces of bf16: the nearest one, the nearest one to what is left, and
// the rest. Nothing is lost unless a piece is too small for a normal number (below 2^-126).
constexpr int kPieces = 3;

// Where the pieces of 16 rows, or of 16 columns, times 32 K-rows lie: kPieces squares from the
// largest piece on. A row of a square holds pairs of K-rows: the first of a pair in the lower bits.
constexpr int kPiecesBytes = kPieces * kSquareBytes;

// The nearest bf16 to `a`, which keeps the rest.
inline __m512i TakePiece(Vec* a) {
  const __m512i bits = _mm512_add_epi32(_mm512_castps_si512(a->v), _mm512_set1_epi32(0x8000));
  const __m512i upper = _mm512_and_si512(bits, _mm512_set1_epi32(-65536));
  a->v = _mm512_sub_ps(a->v, _mm512_castsi512_ps(upper));
  return upper;
}

inline void StorePiece(char* to, __m512i first, __m512i second) {
  _mm512_store_si512(to,
                     _mm512_mask_blend_epi16(0xaaaaaaaau, _mm512_srli_epi32(first, 16), second));
}

// Stores one row of pairs. The lanes of `check`, 0 to begin with, stay finite as long as those of
// `lanes` are finite numbers that are not huge (2^79).
inline void StorePieces(char* to, Vec first, Vec second, Mask lanes, Vec* check) {
  const __m512i upper = TakePiece(&first);
  StorePiece(to, upper, TakePiece(&second));
  const __m512i middle = TakePiece(&first);
  StorePiece(to + kSquareBytes, middle, TakePiece(&second));
  StorePiece(to + 2 * kSquareBytes, _mm512_castps_si512(first.v), _mm512_castps_si512(second.v));
  check->v = _mm512_mask3_fmadd_ps(first.v, second.v, check->v, lanes.m);
}

// The same by cutting off what does not fit, in fewer operations and without overflow. Pieces have
// the sign of their number then: as long as the other factors are rounded, what is left out of
// products adds up to nothing. `kPiece`: bytes from one piece to the next.
inline __m512i CutPiece(Vec* a) {
  const __m512i bits = _mm512_castps_si512(a->v);
  a->v =
      _mm512_sub_ps(a->v, _mm512_castsi512_ps(_mm512_and_si512(bits, _mm512_set1_epi32(-65536))));
  return bits;
}
template <int kPiece = kSquareBytes>
inline void CutPieces(char* to, Vec first, Vec second, Mask lanes, Vec* check) {
  const __m512i upper = CutPiece(&first);
  StorePiece(to, upper, CutPiece(&second));
  const __m512i middle = CutPiece(&first);
  StorePiece(to + kPiece, middle, CutPiece(&second));
  StorePiece(to + 2 * kPiece, _mm512_castps_si512(first.v), _mm512_castps_si512(second.v));
  check->v = _mm512_mask3_fmadd_ps(first.v, second.v, check->v, lanes.m);
}

inline bool AllFinite(Vec a) {
  return _mm512_cmp_ps_mask(_mm512_sub_ps(a.v, a.v), _mm512_setzero_ps(), _CMP_EQ_OQ) == 0xffff;
}

template <bool kMoreRows, bool kMoreColumns>
inline void AddPieces() {
  _tile_dpbf16ps(0, 4, 6);
  if (kMoreRows) _tile_dpbf16ps(1, 5, 6);
  if (kMoreColumns) _tile_dpbf16ps(2, 4, 7);
  if (kMoreRows && kMoreColumns) _tile_dpbf16ps(3, 5, 7);
}
template <bool kMore>
inline void LoadWeightPieces(const char* w, const char* more, int piece) {
  _tile_loadd(4, w + piece * kSquareBytes, 64);
  if (kMore) _tile_loadd(5, more + piece * kSquareBytes, 64);
}
template <bool kMore, int kPiece, int kRow>
inline void LoadColumnPieces(const char* x, const char* more, int piece) {
  _tile_loadd(6, x + piece * kPiece, kRow);
  if (kMore) _tile_loadd(7, more + piece * kPiece, kRow);
}

// Adds the product of 16 or 32 rows and 16 or 32 columns, each given by its pieces. Of their nine
// products the three smallest, together below 2^-22 of the largest, are left out; the order of the
// six takes the fewest loads. `between()` is called kBetween times on the way: what it has the
// vector unit do takes no time of its own as long as it is short. `kPiece`, `kRow`: bytes between
// pieces of columns, and between their pairs of K-rows.
constexpr int kBetween = 6;
template <bool kMoreRows, bool kMoreColumns, int kPiece = kSquareBytes, int kRow = 64,
          typename Between>
inline void AddProducts(const char* w, const char* more_w, const char* x, const char* more_x,
                        Between&& between) {
  LoadWeightPieces<kMoreRows>(w, more_w, 2);
  LoadColumnPieces<kMoreColumns, kPiece, kRow>(x, more_x, 0);
  AddPieces<kMoreRows, kMoreColumns>();
  between();
  LoadWeightPieces<kMoreRows>(w, more_w, 0);
  AddPieces<kMoreRows, kMoreColumns>();
  between();
  LoadColumnPieces<kMoreColumns, kPiece, kRow>(x, more_x, 2);
  AddPieces<kMoreRows, kMoreColumns>();
  between();
  LoadColumnPieces<kMoreColumns, kPiece, kRow>(x, more_x, 1);
  AddPieces<kMoreRows, kMoreColumns>();
  between();
  LoadWeightPieces<kMoreRows>(w, more_w, 1);
  AddPieces<kMoreRows, kMoreColumns>();
  between();
  LoadColumnPieces<kMoreColumns, kPiece, kRow>(x, more_x, 0);
  AddPieces<kMoreRows, kMoreColumns>();
  between();
}

}  // namespace SRT_ISA
}  // namespace sparsert
