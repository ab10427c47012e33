// A product of packed weights and several vectors of packed bytes, as columns.
#pragma once

#include "plan/lower_spmm.h"
#include "plan/vector_columns.h"

namespace sparsert {

class QcolumnsLayer {
 public:
  // `vectors`: one column, one group, one tap; images are vectors of `x_planes` groups of four
  // bytes, and `y_planes` groups or floats of the result.
  QcolumnsLayer(PlanBuilder* b, const SpmmOperands& vectors, int64_t x_planes, int64_t y_planes);

  // As those of SpmmLayer, the copies to columns and back included.
  Status Enter(int first_number, Contest* contest);
  Status Prepare(int n, Trial* trial);
  Status Lower(int n);

 private:
  bool has_residual() const { return vectors_.r.kind != IoRef::kNone; }

  PlanBuilder* b_;
  const SpmmOperands& vectors_;
  SpmmOperands product_;
  VectorColumns in_;
  VectorColumns out_;
  SpmmLayer layer_;
};

}  // namespace sparsert
