// Checks the streams of an encoded tensor in one pass, without decoding it.
#pragma once

#include "graph/graph.h"

namespace sparsert {

// `tensor`'s pointers must cover the lengths that its fields say (the reader sees to that).
// Returns kModelFormat saying which bit, block-row or index is wrong.
Status ValidateStreams(const EncodedTensor& tensor);

}  // namespace sparsert
