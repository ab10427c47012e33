// Lowers a convolution to the spmm kernel that suits it, or to winograd.
#pragma once

#include "plan/choose_winograd.h"
#include "plan/lower_spmm.h"

namespace sparsert {

// Winograd as a candidate of a layer.
class WinogradLayer {
 public:
  WinogradLayer(PlanBuilder* b, const SpmmOperands& operands) : b_(b), o_(operands) {}

  // Whether winograd can compute the layer.
  bool Fits() const;

  // Enters it under `number`.
  void Enter(int number, Contest* contest);

  // Packs the weights for it.
  Status Prepare(Trial* trial);

  // Appends its step.
  Status Lower();

 private:
  Status FillArgs(WinogradArgs** args, PackKey* key);

  PlanBuilder* b_;
  const SpmmOperands& o_;
  WinogradChoice choice_;
};

// Chooses and appends.
Status LowerConvolution(PlanBuilder* b, const SpmmOperands& operands);

}  // namespace sparsert
