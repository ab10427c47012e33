// Lowers one product of packed weights and rows of columns to the spmm kernel that suits it.
#pragma once

#include "plan/builder.h"

namespace sparsert {

struct SpmmOperands {
  PackKey key;  // tensor, groups, taps, transposed
  Window window;
  int64_t batch = 1;
  int64_t columns = 0;
  bool may_be_direct = false;
  int64_t x_image = 0, x_group = 0, x_row = 0;
  int64_t r_image = 0, r_group = 0, r_row = 0;
  int64_t y_image = 0, y_group = 0, y_row = 0;
  IoRef x, r, y;
  uint32_t bias = kNoTensor;
  const float* bias_values = nullptr;  // instead of the tensor: of every row
  Activation act;
};

Status LowerSpmm(PlanBuilder* b, const SpmmOperands& operands);

}  // namespace sparsert
