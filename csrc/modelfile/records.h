// The fixed-layout records of a .sprt file (docs/format.md), as they lie in memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace sparsert {

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "a .sprt file is read in place: only little-endian machines are supported"
#endif

constexpr char kMagic[8] = {'\x89', 'S', 'P', 'R', 'T', '\r', '\n', '\x1a'};
constexpr uint16_t kVersionMajor = 1;
constexpr uint32_t kHeaderBytes = 256;
constexpr uint32_t kCrcStart = 32;
constexpr uint64_t kAlignment = 64;

enum class Section : uint8_t {
  kTensors = 0,
  kNodes = 1,
  kNodeIo = 2,
  kAttrs = 3,
  kInts = 4,
  kFloats = 5,
  kDims = 6,
  kSymbols = 7,
  kGraphIo = 8,
  kStrings = 9,
  kData = 10,
  kMetadata = 11,
};
constexpr size_t kSectionCount = 12;
constexpr const char* kSectionNames[kSectionCount] = {"tensors",  "nodes",   "node_io", "attrs",
                                                      "ints",     "floats",  "dims",    "symbols",
                                                      "graph_io", "strings", "data",    "metadata"};

struct SectionEntry {
  uint64_t offset;
  uint64_t bytes;
};

struct Header {
  char magic[8];
  uint16_t version_major;
  uint16_t version_minor;
  uint32_t header_bytes;
  uint64_t file_bytes;
  uint32_t crc32;
  uint32_t flags;
  SectionEntry sections[kSectionCount];
  uint32_t level_count;   // from version 1.1 on, as levels_first
  uint32_t levels_first;  // tensor
  uint8_t reserved[24];
};
static_assert(sizeof(Header) == kHeaderBytes, "header");

struct TensorRecord {
  uint32_t name_off;
  uint32_t name_len;
  uint8_t dtype;
  uint8_t kind;
  uint8_t encoding;
  uint8_t rank;
  uint32_t dims_first;
  uint64_t data_offset;
  uint64_t data_bytes;
  uint64_t nnz;
  uint16_t block_rows;
  uint16_t block_cols;
  uint8_t value_dtype;
  uint8_t index_kind;
  uint16_t reserved;
  uint32_t quant;
  uint32_t reserved2;
  uint64_t index_bytes;
};
static_assert(sizeof(TensorRecord) == 64, "tensor record");

struct NodeRecord {
  uint16_t op;
  uint16_t op_version;
  uint32_t name_off;
  uint32_t name_len;
  uint32_t io_first;
  uint16_t n_inputs;
  uint16_t n_outputs;
  uint32_t attrs_first;
  uint16_t n_attrs;
  uint16_t reserved[7];
};
static_assert(sizeof(NodeRecord) == 40, "node record");

struct AttrRecord {
  uint16_t key;
  uint8_t type;
  uint8_t reserved;
  uint32_t count;
  uint64_t payload;
};
static_assert(sizeof(AttrRecord) == 16, "attribute record");

struct SymbolRecord {
  uint32_t str_off;
  uint32_t str_len;
};

constexpr size_t kRecordBytes[kSectionCount] = {sizeof(TensorRecord),
                                                sizeof(NodeRecord),
                                                sizeof(uint32_t),
                                                sizeof(AttrRecord),
                                                sizeof(int64_t),
                                                sizeof(float),
                                                sizeof(int64_t),
                                                sizeof(SymbolRecord),
                                                sizeof(uint32_t),
                                                1,
                                                1,
                                                1};

}  // namespace sparsert
