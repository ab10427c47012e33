// Batches run some images at a time: the network's activations then stay in cache, one arena of a
// slice's size serves them all, and threads may take a slice each instead of sharing every layer.
#pragma once

#include "graph/infer_shapes.h"

namespace sparsert {

struct BatchSlices {
  int64_t images = 0;  // of the whole batch; 0: the batch is not cut
  int64_t slice_images = 0;
  int32_t slices = 1;
  bool slice_per_thread = false;
};

// How to cut the batch. `facts`: of the whole batch. Only a graph whose every op treats the images
// (dimension 0 of all inputs and outputs) one by one can be cut; and only one whose activations are
// large is.
BatchSlices ChooseBatchSlices(const Graph& graph, const ShapeTable& facts, int threads);

// Whether `slice`, inferred for slice_images images, is `facts` but for dimension 0.
bool SlicesAgree(const Graph& graph, const ShapeTable& facts, const ShapeTable& slice,
                 const BatchSlices& cut);

}  // namespace sparsert
