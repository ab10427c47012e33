// Attention over packed bytes: for each head of each batch, with sums of products of bytes exact in
// 32 bits and `step` one row of `steps`,
//
//   s = f32(sum of (q - q_zero) (k - k_zero)) * factor, rounded by step 0
//   s = s * factor, rounded by step 1
//   s = s + mask, rounded by step 2
//   p = clamp(round(softmax(s) * inverse) + zero, low, high), of step 3
//   z = f32(sum of (p - zero) (v - v_zero)) * factor
//   y = z, or clamp(round(z * inverse) + zero, low, high), of step 4
//
// where rounded is clamp(round(s * inverse), low - zero, high - zero) * scale, or s where the
// step's scale is 0, and inverse is 1 / scale. A softmax over scores that are all -infinity is 0.
#pragma once

#include "kernels/kernel.h"

namespace sparsert {

struct AttentionStep {
  float factor, scale, inverse;
  int32_t zero, low, high;
};
constexpr int kAttentionSteps = 5;

// Elements between neighbours; 0 where a mask is broadcast.
struct PlaneStrides {
  int64_t batch, plane;  // planes: of four features, or of one of a y of floats
};
struct MaskStrides {
  int64_t batch, head, query, key;
};

// io: q, k, v, mask (may be nullptr), y; tokens lie side by side. A work item is one head of one
// batch.
struct QattentionArgs {
  int64_t batch, heads;
  int64_t queries, keys;
  int64_t planes, value_planes;  // of a head: four features each
  PlaneStrides q, k, v, y;
  MaskStrides mask;
  int32_t q_zero, k_zero, v_zero;
  bool y_is_float;
  AttentionStep steps[kAttentionSteps];
};

// Keys and features of one head, for which no sum leaves 32 bits.
constexpr int64_t kQattentionTerms = 16384;

inline int64_t QattentionItems(const QattentionArgs& args) { return args.batch * args.heads; }

size_t QattentionScratch(const QattentionArgs& args);

bool SelectQattention(Isa isa, Kernel* kernel);

}  // namespace sparsert
