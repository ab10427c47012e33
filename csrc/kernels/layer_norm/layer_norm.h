// LayerNorm: y = (x - mean) / sqrt(variance + epsilon) * scale + bias over groups of elements;
// without centring, y = x / sqrt(mean of squares + epsilon) * scale.
#pragma once

#include "base/arch.h"
#include "kernels/kernel.h"
#include "kernels/loop.h"

namespace sparsert {

// Elements of one lane that are summed before the partial sum is kept: a run.
constexpr int64_t kNormRun = 64;

// Threads that each wrote some elements of all groups, as they do of products that they share by
// rows, share these likewise. Items of kSums and kRows are runs; kCentres has one item.
enum class NormStage : uint8_t { kAll, kSums, kCentres, kRows };

// io: x, scale, bias (may be nullptr), y, [sums: NormSumsFloats(), where there are stages]. y may
// be x when both have the same strides.
struct LayerNormArgs {
  bool centred;
  bool along_rows;  // the elements of a group are contiguous; else neighbouring groups are
  float epsilon;
  int64_t count;   // elements of a group; scale and bias: [count]
  int64_t x_step;  // elements between them
  int64_t y_step;
  Loop<2> rest;  // y, x: over the groups
  NormStage stage = NormStage::kAll;
};

SRT_INLINE int64_t NormRuns(const LayerNormArgs& args) {
  return (args.count + kNormRun - 1) / kNormRun;
}
SRT_INLINE int64_t NormSumsRow(const LayerNormArgs& args) { return (args.rest.row + 15) / 16 * 16; }
SRT_INLINE int64_t NormSumsFloats(const LayerNormArgs& args) {
  return (2 * NormRuns(args) + 3) * NormSumsRow(args);
}

// x and y: f32 of one shape; a group is dimensions first .. rank - 1. False when these have no
// common stride in x or in y, or neither they nor the groups are contiguous in both.
bool MakeLayerNormArgs(bool centred, float epsilon, const TensorDesc& x, int first,
                       const TensorDesc& y, LayerNormArgs* args);

// Work items: several groups.
int64_t LayerNormItems(const LayerNormArgs& args);

bool SelectLayerNorm(const LayerNormArgs& args, Isa isa, Kernel* kernel);

}  // namespace sparsert
