// Softmax: y = exp(x - max) / sum exp(x - max) along one dimension, or its logarithm
// x - max - log(sum exp(x - max)).
#pragma once

#include "kernels/kernel.h"
#include "kernels/loop.h"

namespace sparsert {

// io: x, y. y may be x when both have the same strides.
struct SoftmaxArgs {
  bool log;
  bool along_rows;  // the dimension is contiguous; else neighbouring results are
  int64_t count;    // elements of the dimension
  int64_t x_step;   // elements between them
  int64_t y_step;
  Loop<2> rest;  // y, x: over the other dimensions
};

// x and y: f32 of one shape; axis in [0, rank).
SoftmaxArgs MakeSoftmaxArgs(bool log, const TensorDesc& x, int axis, const TensorDesc& y);

// Work items: groups of slices along the axis.
int64_t SoftmaxItems(const SoftmaxArgs& args);

bool SelectSoftmax(const SoftmaxArgs& args, Isa isa, Kernel* kernel);

}  // namespace sparsert
