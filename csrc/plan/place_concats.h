// The pass that decides which tensors are written straight into a concatenation.
#pragma once

#include "base/bump.h"
#include "graph/infer_shapes.h"

namespace sparsert {

// Where a tensor's channels lie: channel i is channel first + i * step of `whole`, which may itself
// be part of a larger one; or, with kNoTensor, in memory of its own.
struct ConcatPart {
  uint32_t whole = kNoTensor;
  int64_t first = 0;
  int64_t step = 1;
  // [channels], or nullptr: channel i is channel order[i] of `whole` instead. Only for the result
  // of a Concat that nothing but a Gather, whose output is `whole`, reads: no step reads it.
  const int64_t* order = nullptr;
};

// Where channels [begin, begin + count) of such a tensor lie, count > 0. False when they do not lie
// at equal distances, in rising order.
bool PartOfOrder(const ConcatPart& concat, int64_t begin, int64_t count, ConcatPart* part);

// Ops whose output is their input's bytes under another shape.
bool IsReshape(Op op);

// Fills `parts`: [graph.tensors]. A whole is the output of a Concat of the channels of float
// planes, dimension 1 or the last one of what is feature-major, that is not an output of the graph,
// or of a Gather that puts the channels of such a Concat in another order, as a channel shuffle
// does. A part is an input of the Concat that a step writes. Constants, inputs and outputs of the
// graph, views and reshapes are no parts, and nothing is part of two wholes: the Concat copies
// these. feature_major: [graph.tensors].
Status PlaceConcats(const Graph& graph, const ShapeTable& table, const Array<bool>& feature_major,
                    Bump* memory, Array<ConcatPart>* parts);

}  // namespace sparsert
