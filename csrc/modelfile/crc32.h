// CRC-32 as zlib computes it (polynomial 0xedb88320, reflected).
#pragma once

#include <cstddef>
#include <cstdint>

namespace sparsert {

// `before`: the checksum of the bytes in front of these, if there are any.
uint32_t Crc32(const void* data, size_t bytes, uint32_t before = 0);

}  // namespace sparsert
