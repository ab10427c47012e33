// Attention: y = softmax(alpha * q k' + mask) v for each head of each batch. The scores of a block
// of queries and keys are all that is ever stored of the matrix of scores.
#pragma once

#include "kernels/kernel.h"

namespace sparsert {

// Elements between neighbours along each dimension of an operand; 0 where it is broadcast.
struct AttentionStrides {
  int64_t batch, head;
  int64_t token;  // query of q, mask and y, key of k and v
  int64_t size;   // feature; of the mask: key
};

// io: q, k, v, mask (may be nullptr), y. y overlaps none of them.
struct AttentionArgs {
  int64_t batch, heads;
  int64_t head_group;  // successive heads that share k and v
  int64_t queries, keys;
  int64_t size, value_size;  // features of a head
  AttentionStrides q, k, v, mask, y;
  float alpha;
  bool zero_nan;  // a softmax that is NaN is 0 instead
};

// Queries that a work item computes, keys whose scores it holds at a time.
constexpr int64_t kAttentionQueries = 64;
constexpr int64_t kAttentionKeys = 128;

// Work items: blocks of queries of one head.
int64_t AttentionItems(const AttentionArgs& args);

size_t AttentionScratch(const AttentionArgs& args);

bool SelectAttention(const AttentionArgs& args, Isa isa, Kernel* kernel);

}  // namespace sparsert
