// Packing of SpmmFormat::kAny4.
#pragma once

#include "plan/pack_spmm.h"

namespace sparsert {

// A panel of up to four rows of one block. `next`: where each row's entries of this block begin,
// moved to its end.
Status AppendAny4Panel(const PackEntry* entries, const uint32_t* row_end, int rows,
                       uint32_t k_begin, uint32_t k_end, uint32_t* next, PackedSpmm* packed);

}  // namespace sparsert
