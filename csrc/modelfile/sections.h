// A .sprt file cut into its sections.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/span.h"
#include "base/status.h"
#include "modelfile/records.h"

namespace sparsert {

constexpr uint64_t AlignUp(uint64_t n, uint64_t alignment) {
  return (n + alignment - 1) / alignment * alignment;
}

// Section floats is not read: no attribute of version 1 has the type floats.
struct FileSections {
  SectionEntry entries[kSectionCount] = {};
  Span<TensorRecord> tensors;
  Span<NodeRecord> nodes;
  Span<uint32_t> node_io;
  Span<AttrRecord> attrs;
  Span<int64_t> ints;
  Span<int64_t> dims;
  Span<SymbolRecord> symbols;
  Span<uint32_t> graph_io;
  Span<uint8_t> strings;  // valid UTF-8 without zero bytes
  Span<uint8_t> data;
  StrView metadata;
  uint32_t level_count = 0;
  uint32_t levels_first = 0;

  const SectionEntry& entry(Section section) const { return entries[static_cast<size_t>(section)]; }
};

// Checks that `bytes[0, size)` (64-byte aligned) start with a header of version 1, have the size
// and checksum it says, and that the sections follow each other within them. `is_mapped`: of a
// file, whose pages are given back once they are checked.
Status SplitFile(const uint8_t* bytes, size_t size, bool is_mapped, FileSections* file);

}  // namespace sparsert
