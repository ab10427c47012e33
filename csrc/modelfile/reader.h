// Reads a .sprt file: checks every byte it will ever use, then hands out views into it.
#pragma once

#include <cstddef>

#include "graph/graph.h"

namespace sparsert {

// Validates `bytes[0, size)` (64-byte aligned) as a .sprt file and fills `graph`, which keeps
// pointing into `bytes`. Returns kModelFormat naming what is wrong and where. Never reads outside
// the bytes, whatever they hold. `is_mapped`: they are a mapped file, whose pages are given back
// once they are checked.
Status ReadModel(const void* bytes, size_t size, const Allocator* allocator, Graph* graph,
                 bool is_mapped = false);

}  // namespace sparsert
