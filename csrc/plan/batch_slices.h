// Batches run some images at a time: the network's activations then stay in cache, one arena of a
// slice's size serves them all, and threads may take a slice each instead of sharing every layer.
// Where a network's last layers have more weights than activations, more images meet a weight at a
// time there, all of them if that is not too much: the batch runs in two stages.
#pragma once

#include "graph/infer_shapes.h"
#include "plan/weights.h"

namespace sparsert {

struct BatchStage {
  uint32_t first_node = 0;
  uint32_t end_node = 0;
  int64_t slice_images = 0;
  int32_t slices = 1;
  bool slice_per_thread = false;
};

struct BatchSlices {
  int64_t images = 0;  // of the whole batch; 0: the batch is not cut
  int stage_count = 0;
  BatchStage stages[2];
};

// How to cut the batch. `facts`: of the whole batch. Only a graph whose every op treats the images
// (dimension 0 of all inputs and outputs) one by one can be cut; and only one whose activations are
// large is. What one stage passes on to the next is one tensor of floats. `memory_limit`: 0, or
// bytes that a run may need.
Status ChooseBatchSlices(const Graph& graph, const ShapeTable& facts, int threads,
                         uint64_t memory_limit, Weights* weights, BatchSlices* cut);

// Whether `slice`, inferred for slice_images of all `images`, is `facts` but for dimension 0.
bool SlicesAgree(const Graph& graph, const ShapeTable& facts, const ShapeTable& slice,
                 int64_t images, int64_t slice_images);

}  // namespace sparsert
