// The vectors of a batch as the columns of one product, and back.
#pragma once

#include "plan/builder.h"

namespace sparsert {

// `count` vectors of `size` numbers of four bytes, and the same as columns [size][width], each row
// padded to whole vectors of lanes.
struct VectorColumns {
  int64_t size = 0;
  int64_t width = 0;

  VectorColumns(int64_t vector_size, int64_t count)
      : size(vector_size), width((count + 15) / 16 * 16) {}
  TensorDesc vectors(int64_t count, int64_t stride) const;
  TensorDesc vectors(int64_t count) const { return vectors(count, size); }
  TensorDesc columns(int64_t count) const;
  int64_t floats() const { return size * width; }
  size_t bytes() const { return static_cast<size_t>(floats()) * sizeof(float); }
};

// Adds the copy of one into the other to a trial.
Status AddTranspose(PlanBuilder* b, const TensorDesc& from_desc, TrialBuffer from,
                    const TensorDesc& to_desc, TrialBuffer to, Trial* trial);

}  // namespace sparsert
