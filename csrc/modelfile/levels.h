// Levels: one file that holds a network with several shares of zeros, what they share once.
#pragma once

#include "graph/graph.h"
#include "modelfile/problems.h"

namespace sparsert {

// Reads the levels `first` to `first + count - 1` of a file whose tensors and nodes were read.
// Checks every index and count, and that a tensor with bits or scales is nothing but the weights of
// layers, which are decoded before they are used.
Status ReadLevels(uint32_t first, uint32_t count, Graph* graph, Problems* problems);

// Makes `out` the graph of one level: its nodes and attributes are those of `graph`, which must
// outlive it, as `keeps` must, which gets the bits of what the level keeps.
Status MakeLevelGraph(const Graph& graph, size_t level, Array<uint8_t>* keeps, Graph* out);

// Bytes of the file that the level alone needs.
uint64_t LevelBytes(const Graph& graph, size_t level);

}  // namespace sparsert
