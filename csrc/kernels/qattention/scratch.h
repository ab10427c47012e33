// What one thread of qattention keeps of a head.
#pragma once

#include <cstdint>

#include "kernels/qattention/qattention.h"

namespace sparsert {

// Queries that are computed together: a whole number of vectors on every instruction set.
constexpr int64_t kQattentionQueries = 64;

// Rows of kQattentionQueries elements lie in front, so that each of them is aligned. Groups of four
// signed bytes stand where floats would: those of keys along features, those of values along keys.
struct QattentionBlock {
  QattentionBlock(const QattentionArgs& a, float* memory)
      : keys((a.keys + 15) / 16 * 16), values(4 * a.value_planes), groups((a.keys + 3) / 4) {
    const auto take = [&](int64_t count) {
      float* at = memory == nullptr ? nullptr : memory + floats;
      floats += count;
      return at;
    };
    queries = take(a.planes * kQattentionQueries);
    scores = take(keys * kQattentionQueries);
    shares = take(groups * kQattentionQueries);
    start = reinterpret_cast<int32_t*>(take(kQattentionQueries));
    most = take(kQattentionQueries);
    k_sums = reinterpret_cast<int32_t*>(take(keys));
    k = take(keys * a.planes);
    v = take(keys * a.value_planes);
    ones = take(a.planes > groups ? a.planes : groups);
    v_sums = reinterpret_cast<int32_t*>(take(values));
  }

  int64_t keys;    // to whole vectors on every instruction set
  int64_t values;  // features of v
  int64_t groups;  // of four keys
  int64_t floats = 0;

  float* queries;  // [planes][queries]
  float* scores;   // [keys][queries]
  float* shares;   // [groups][queries]
  int32_t* start;  // [queries] what sums begin with
  float* most;     // [queries] the largest scores
  float* k;        // [planes][keys]
  float* v;        // [value_planes][groups][4 features]
  float* ones;     // weights of 1
  int32_t* k_sums;
  int32_t* v_sums;
};

}  // namespace sparsert
