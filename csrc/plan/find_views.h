// Which outputs of Split and Slice are a part of their input that needs no copy.
#pragma once

#include "graph/node_view.h"

namespace sparsert {

// The dimension of a tensor whose elements are planes.
inline int PlaneAxis(const Shape& shape, bool feature_major) {
  return feature_major ? shape.rank - 1 : 1;
}

// The output begins at index `image` of dimension 0 of input 0 and at plane `plane`.
struct ViewRange {
  bool is_view = false;
  int64_t image = 0;
  int64_t plane = 0;
};

// Output `output` of any node; only Split and Slice have views. Those begin at any image and plane,
// go on in steps of 1 and take all of the other dimensions: so their planes stay whole.
// feature_major: [graph.tensors]; a tensor that is has no views that are not.
Status FindView(const NodeView& node, size_t output, const Array<bool>& feature_major,
                ViewRange* range);

}  // namespace sparsert
