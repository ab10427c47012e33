// Attention over Vec: a lane is a query, so that the softmax of each runs in its own lane.
#pragma once

#include "kernels/attention/attention.h"
#include "kernels/define.h"
#include "kernels/matmul/tile.h"
#include "simd/vec_math.h"

namespace sparsert {
namespace SRT_ISA {

constexpr int64_t kQueryRow = kAttentionQueries;

// Scratch of one item; rows of kQueryRow queries.
struct AttentionBlock {
  float* queries;  // [size]
  float* scores;   // [keys of a block]
  float* result;   // [value_size]
  float* max;
  float* sum;
  float* correction;
};

// Adds the mask to the scores of `keys` keys and makes them exp(score - max); `mask`: nullptr, or
// that of the first key and query. Later blocks of keys may find larger scores: `correction` is
// what the sums so far are to be multiplied by.
static void ExpScores(const AttentionBlock& block, const float* mask,
                      const AttentionStrides& strides, int64_t keys, int64_t queries) {
  const Vec lowest = Set1(-__builtin_inff());
  for (int64_t q = 0; q < queries; q += Vec::kLanes) {
    const Mask lanes =
        FirstN(static_cast<int>(queries - q < Vec::kLanes ? queries - q : Vec::kLanes));
    float* scores = block.scores + q;
    const Vec before = LoadU(block.max + q);
    Vec max = before;
    if (mask == nullptr) {
      for (int64_t k = 0; k < keys; ++k) max = Max(max, LoadU(scores + k * kQueryRow));
    } else if (strides.token == 0) {
      for (int64_t k = 0; k < keys; ++k) {
        const Vec score = Add(LoadU(scores + k * kQueryRow), Set1(mask[k * strides.size]));
        StoreU(scores + k * kQueryRow, score);
        max = Max(max, score);
      }
    } else {
      for (int64_t k = 0; k < keys; ++k) {
        const Vec add = LoadMask(mask + q + k * strides.size, lanes);
        const Vec score = Add(LoadU(scores + k * kQueryRow), add);
        StoreU(scores + k * kQueryRow, score);
        max = Max(max, score);
      }
    }
    // Where all scores are -inf, nothing is subtracted: exp gives 0 then, not NaN.
    const Vec shift = Select(Equal(max, lowest), Zero(), max);
    const Vec correction = Exp(Sub(before, shift));
    Vec sum = Mul(LoadU(block.sum + q), correction);
    for (int64_t k = 0; k < keys; ++k) {
      const Vec e = Exp(Sub(LoadU(scores + k * kQueryRow), shift));
      StoreU(scores + k * kQueryRow, e);
      sum = Add(sum, e);
    }
    StoreU(block.max + q, max);
    StoreU(block.sum + q, sum);
    StoreU(block.correction + q, correction);
  }
}

static void WriteResult(const AttentionArgs& args, const AttentionBlock& block, int64_t queries,
                        float* y) {
  const Vec lowest = Set1(-__builtin_inff());
  for (int64_t q = 0; q < queries; q += Vec::kLanes) {
    const int n = static_cast<int>(queries - q < Vec::kLanes ? queries - q : Vec::kLanes);
    const Mask lanes = FirstN(n);
    // A softmax of nothing but -inf is NaN.
    Vec factor = Div(Set1(1.0f), LoadU(block.sum + q));
    factor = Select(Equal(LoadU(block.max + q), lowest), Set1(__builtin_nanf("")), factor);
    const auto is_number = Equal(factor, factor);
    for (int64_t d = 0; d < args.value_size; ++d) {
      Vec value = Mul(LoadU(block.result + d * kQueryRow + q), factor);
      if (args.zero_nan) value = Select(is_number, value, Zero());
      float* to = y + q * args.y.token + d * args.y.size;
      if (args.y.token == 1) {
        StoreMask(to, lanes, value);
      } else {
        float parts[Vec::kLanes];
        StoreU(parts, value);
        for (int i = 0; i < n; ++i) to[i * args.y.token] = parts[i];
      }
    }
  }
}

static void AttendBlock(const AttentionArgs& args, const AttentionBlock& block, const float* q,
                        const float* k, const float* v, const float* mask, int64_t queries,
                        float* y) {
  const int64_t padded = (queries + Vec::kLanes - 1) / Vec::kLanes * Vec::kLanes;
  TileOperands score;
  score.b = q;
  score.b_row = args.q.size;
  if (args.q.token != 1 || padded != queries) {
    PackPanel(q, args.q.size, args.q.token, args.size, queries, block.queries, kQueryRow);
    score.b = block.queries;
    score.b_row = kQueryRow;
  }
  score.a_row = args.k.token;
  score.a_col = args.k.size;
  score.y = block.scores;
  score.y_row = kQueryRow;
  score.k = args.size;
  score.alpha = args.alpha;
  score.add = false;
  TileOperands value;
  value.a_row = args.v.size;
  value.a_col = args.v.token;
  value.b = block.scores;
  value.b_row = kQueryRow;
  value.y = block.result;
  value.y_row = kQueryRow;
  value.alpha = 1.0f;
  for (int64_t i = 0; i < padded; i += Vec::kLanes) {
    StoreU(block.max + i, Set1(-__builtin_inff()));
    StoreU(block.sum + i, Zero());
  }
  for (int64_t done = 0; done < args.keys; done += kAttentionKeys) {
    const int64_t keys = args.keys - done < kAttentionKeys ? args.keys - done : kAttentionKeys;
    score.a = k + done * args.k.token;
    Multiply(score, keys, padded);
    ExpScores(block, mask == nullptr ? nullptr : mask + done * args.mask.size, args.mask, keys,
              queries);
    value.a = v + done * args.v.token;
    value.k = keys;
    value.add = done != 0;
    for (int64_t d = 0; value.add && d < args.value_size; ++d) {
      float* row = block.result + d * kQueryRow;
      for (int64_t i = 0; i < padded; i += Vec::kLanes) {
        StoreU(row + i, Mul(LoadU(row + i), LoadU(block.correction + i)));
      }
    }
    Multiply(value, args.value_size, padded);
  }
  WriteResult(args, block, queries, y);
}

static void Attention(const void* args_block, void* const* io, int64_t begin, int64_t end,
                      void* scratch) {
  const DenormalsAreZero guard;
  const AttentionArgs& args = *static_cast<const AttentionArgs*>(args_block);
  const int64_t stored_keys = args.keys < kAttentionKeys ? args.keys : kAttentionKeys;
  AttentionBlock block;
  block.queries = static_cast<float*>(scratch);
  block.scores = block.queries + args.size * kQueryRow;
  block.result = block.scores + stored_keys * kQueryRow;
  block.max = block.result + args.value_size * kQueryRow;
  block.sum = block.max + kQueryRow;
  block.correction = block.sum + kQueryRow;
  const int64_t blocks = (args.queries + kAttentionQueries - 1) / kAttentionQueries;
  for (int64_t item = begin; item < end; ++item) {
    const int64_t first = item % blocks * kAttentionQueries;
    const int64_t head = item / blocks % args.heads;
    const int64_t batch = item / blocks / args.heads;
    const auto at = [&](void* operand, const AttentionStrides& s, int64_t h, int64_t token) {
      return static_cast<float*>(operand) + batch * s.batch + h * s.head + token * s.token;
    };
    const int64_t shared = head / args.head_group;
    const int64_t left = args.queries - first;
    AttendBlock(args, block, at(io[0], args.q, head, first), at(io[1], args.k, shared, 0),
                at(io[2], args.v, shared, 0),
                io[3] == nullptr ? nullptr : at(io[3], args.mask, head, first),
                left < kAttentionQueries ? left : kAttentionQueries,
                at(io[4], args.y, head, first));
  }
}

}  // namespace SRT_ISA
}  // namespace sparsert
