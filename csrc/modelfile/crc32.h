// CRC-32 as zlib computes it (polynomial 0xedb88320, reflected).
#pragma once

#include <cstddef>
#include <cstdint>

namespace sparsert {

uint32_t Crc32(const void* data, size_t bytes);

}  // namespace sparsert
