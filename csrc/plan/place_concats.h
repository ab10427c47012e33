// The pass that decides which tensors are written straight into a concatenation.
#pragma once

#include "graph/infer_shapes.h"

namespace sparsert {

// Where a tensor lies: in channels [first, first + its own) of `whole`, which may itself be part of
// a larger one; or, with kNoTensor, in memory of its own.
struct ConcatPart {
  uint32_t whole = kNoTensor;
  int64_t first = 0;
};

// Ops whose output is their input's bytes under another shape.
bool IsReshape(Op op);

// Fills `parts`: [graph.tensors]. A whole is the output of a Concat of float planes along dimension
// 1 that is not an output of the graph; a part is one of its inputs that a step writes. Constants,
// inputs and outputs of the graph, views and reshapes are no parts, and nothing is part of two
// wholes: the Concat copies these.
Status PlaceConcats(const Graph& graph, const ShapeTable& table, Array<ConcatPart>* parts);

}  // namespace sparsert
