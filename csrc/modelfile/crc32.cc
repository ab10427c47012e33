// CRC-32 by the instruction that 64-bit ARM has for it; by four bytes at a time (slicing); or by
// sixteen on two interleaved halves: the two dependency chains overlap in the pipeline, and the
// first half's checksum is then advanced over the second.
#include "modelfile/crc32.h"

#include <cstring>

#include "base/arch.h"
#include "base/cpu.h"

namespace sparsert {
namespace {

constexpr uint32_t kPolynomial = 0xedb88320u;
#if defined(SRT_X86)
constexpr size_t kSlices = 16;
#else
constexpr size_t kSlices = 4;  // a device has little room
#endif
constexpr bool kInterleaves = kSlices == 16;
constexpr size_t kMinInterleavedBytes = 1024;

struct Tables {
  uint32_t slice[kSlices][256];
};

constexpr Tables MakeTables() {
  Tables tables{};
  for (uint32_t byte = 0; byte < 256; ++byte) {
    uint32_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? kPolynomial : 0);
    tables.slice[0][byte] = crc;
  }
  for (size_t s = 1; s < kSlices; ++s) {
    for (uint32_t byte = 0; byte < 256; ++byte) {
      const uint32_t crc = tables.slice[s - 1][byte];
      tables.slice[s][byte] = (crc >> 8) ^ tables.slice[0][crc & 0xff];
    }
  }
  return tables;
}

constexpr Tables kTables = MakeTables();

inline uint32_t Load32(const uint8_t* bytes) {
  return static_cast<uint32_t>(bytes[0]) | static_cast<uint32_t>(bytes[1]) << 8 |
         static_cast<uint32_t>(bytes[2]) << 16 | static_cast<uint32_t>(bytes[3]) << 24;
}

inline uint32_t Slice4(uint32_t word, size_t first) {
  return kTables.slice[first + 3][word & 0xff] ^ kTables.slice[first + 2][(word >> 8) & 0xff] ^
         kTables.slice[first + 1][(word >> 16) & 0xff] ^ kTables.slice[first][word >> 24];
}

inline uint32_t Update16(uint32_t crc, const uint8_t* bytes) {
  if (kSlices == 4) {
    for (int word = 0; word < 4; ++word) crc = Slice4(Load32(bytes + 4 * word) ^ crc, 0);
    return crc;
  }
  return Slice4(Load32(bytes) ^ crc, kSlices - 4) ^ Slice4(Load32(bytes + 4), kSlices / 2) ^
         Slice4(Load32(bytes + 8), kSlices / 4) ^ Slice4(Load32(bytes + 12), 0);
}

// a * b modulo the polynomial; bit 31 is x^0.
constexpr uint32_t Multiply(uint32_t a, uint32_t b) {
  uint32_t product = 0;
  for (uint32_t bit = 0x80000000u; bit != 0; bit >>= 1) {
    if ((a & bit) != 0) product ^= b;
    b = (b >> 1) ^ ((b & 1) != 0 ? kPolynomial : 0);
  }
  return product;
}

// x^(8 * bytes) modulo the polynomial.
uint32_t PowerOfByte(size_t bytes) {
  uint32_t result = 0x80000000u;  // x^0
  uint32_t square = 0x00800000u;  // x^8
  for (; bytes != 0; bytes >>= 1) {
    if ((bytes & 1) != 0) result = Multiply(result, square);
    square = Multiply(square, square);
  }
  return result;
}

#if defined(SRT_ARM) && defined(__GNUC__)
// By an instruction that not all cores have.
uint32_t Update8(uint32_t crc, const uint8_t* bytes) {
  uint64_t word;
  memcpy(&word, bytes, sizeof(word));
  __asm__(".arch_extension crc\n\tcrc32x %w0, %w0, %x1" : "+r"(crc) : "r"(word));
  return crc;
}
#endif

}  // namespace

uint32_t Crc32(const void* data, size_t bytes, uint32_t before) {
  const uint8_t* at = static_cast<const uint8_t*>(data);
  uint32_t crc = ~before;
#if defined(SRT_ARM) && defined(__GNUC__)
  if (HasCrcInstructions()) {
    for (; bytes >= 8; bytes -= 8, at += 8) crc = Update8(crc, at);
  }
#endif
  if (kInterleaves && bytes >= kMinInterleavedBytes) {
    const size_t half = bytes / 32 * 16;
    const uint8_t* second = at + half;
    uint32_t second_crc = 0;
    for (size_t i = 0; i < half; i += 16) {
      crc = Update16(crc, at + i);
      second_crc = Update16(second_crc, second + i);
    }
    crc = Multiply(PowerOfByte(half), crc) ^ second_crc;
    at += 2 * half;
    bytes -= 2 * half;
  }
  for (; bytes >= 16; bytes -= 16, at += 16) crc = Update16(crc, at);
  for (; bytes != 0; --bytes, ++at) crc = (crc >> 8) ^ kTables.slice[0][(crc ^ *at) & 0xff];
  return ~crc;
}

}  // namespace sparsert
