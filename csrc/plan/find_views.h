// Which outputs of Split and Slice are a part of their input that needs no copy.
#pragma once

#include "graph/node_view.h"

namespace sparsert {

// Index (i, j, ...) of the output is index (start[0] + i, start[1] + j, ...) of input 0.
struct ViewRange {
  bool is_view = false;
  int64_t start[2] = {0, 0};
};

// Output `output` of any node; only Split and Slice have views. Those begin anywhere in dimensions
// 0 and 1, go on in steps of 1 and take all of the other dimensions: so their planes stay whole.
Status FindView(const NodeView& node, size_t output, ViewRange* range);

}  // namespace sparsert
