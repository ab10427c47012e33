// Qattention over Vec and groups of four bytes: a lane is a query, so that the softmax of each runs
// in its own lane. Included once per instruction set, after its vec_*.h and dot_*.h, with SRT_ISA
// defined.
#pragma once

#include <cstring>

#include "kernels/define.h"
#include "kernels/qattention/qattention.h"
#include "kernels/qattention/scratch.h"
#include "simd/vec_math.h"

namespace sparsert {
namespace SRT_ISA {

// The products' left operand is signed: 128 is taken off its bytes.
constexpr int32_t kSign = 128;
constexpr uint32_t kSigns = 0x80808080u;
constexpr int64_t kQueryRow = kQattentionQueries;
constexpr int kDotVecs = Vec::kRegisters >= 32 ? 4 : 2;

SRT_INLINE Vec Clamp(Vec a, Vec low, Vec high) { return Min(Max(a, low), high); }

struct Rounding {
  explicit Rounding(const AttentionStep& s)
      : rounds(s.scale != 0.0f),
        factor(Set1(s.factor)),
        scale(Set1(s.scale)),
        inverse(Set1(s.inverse)),
        low(Set1(static_cast<float>(s.low - s.zero))),
        high(Set1(static_cast<float>(s.high - s.zero))) {}
  bool rounds;
  Vec factor, scale, inverse, low, high;
};

using ScoreTile = Vec[4][kDotVecs];

SRT_INLINE void ScaleTile(Vec factor, ScoreTile& tile) {
#pragma GCC unroll 4
  for (auto& row : tile) {
#pragma GCC unroll 4
    for (Vec& s : row) s = Mul(s, factor);
  }
}

SRT_INLINE void RoundTile(const Rounding& rounding, ScoreTile& tile) {
  if (!rounding.rounds) return;
#pragma GCC unroll 4
  for (auto& row : tile) {
#pragma GCC unroll 4
    for (Vec& s : row) {
      const Vec level = Round(Clamp(Mul(s, rounding.inverse), rounding.low, rounding.high));
      s = Mul(level, rounding.scale);
    }
  }
}

inline void StoreGroup(float* p, uint32_t bytes) { memcpy(p, &bytes, sizeof(bytes)); }

// Signed groups of `count` tokens, then zeros up to `padded`.
inline void SignGroups(const float* from, int64_t count, int64_t padded, float* to) {
  for (int64_t t = 0; t < count; ++t) {
    uint32_t bytes;
    memcpy(&bytes, from + t, sizeof(bytes));
    StoreGroup(to + t, bytes ^ kSigns);
  }
  memset(to + count, 0, static_cast<size_t>(padded - count) * sizeof(float));
}

// Bytes that count as 1 each.
SRT_INLINE ByteVec OneBytes() {
  uint32_t bytes = 0x01010101u * (kByteOffset + 1);
  float group;
  memcpy(&group, &bytes, sizeof(group));
  return ToBytes(Set1(group));
}

// Groups of four features of each key, and the sums of the keys' features.
static void TurnKeys(const QattentionArgs& a, const float* k, const QattentionBlock& block) {
  for (int64_t p = 0; p < a.planes; ++p) {
    SignGroups(k + p * a.k.plane, a.keys, block.keys, block.k + p * block.keys);
  }
  const ByteVec ones = OneBytes();
  for (int64_t t = 0; t < block.keys; t += Vec::kLanes) {
    IntVec sum = SetInts(0);
    for (int64_t p = 0; p < a.planes; ++p) {
      sum = Dot(ones, LoadLaneWeights(block.k + p * block.keys + t), sum);
    }
    StoreInts(block.k_sums + t, sum);
  }
}

// Groups of four keys of each feature, four features side by side, and the sums of the features
// over the keys; keys that do not exist add nothing.
static void TurnValues(const QattentionArgs& a, const float* v, const QattentionBlock& block) {
  const ByteVec ones = OneBytes();
  for (int64_t p = 0; p < a.value_planes; ++p) {
    float* turned = block.v + p * block.keys;
    SignGroups(v + p * a.v.plane, a.keys, block.keys, turned);
    IntVec sum = SetInts(0);
    for (int64_t t = 0; t < block.keys; t += Vec::kLanes) {
      const Vec groups = TurnGroups(LoadU(turned + t));
      StoreU(turned + t, groups);
      sum = Dot(ones, ToWeights(groups), sum);
    }
    alignas(64) int32_t lane[Vec::kLanes];
    StoreInts(lane, sum);
    for (int d = 0; d < 4; ++d) {
      int32_t total = 0;
      for (int l = d; l < Vec::kLanes; l += 4) total += lane[l];
      block.v_sums[4 * p + d] = total;
    }
  }
}

// Products of R rows of `k` signed groups, side by side and w_step from one another, with the
// columns from x on.
template <int R>
SRT_INLINE void DotTile(const float* w, int64_t w_step, int64_t k, const float* x,
                        IntVec (&sums)[R][kDotVecs]) {
  for (int64_t i = 0; i < k; ++i, x += kQueryRow, w += w_step) {
    ByteVec columns[kDotVecs];
#pragma GCC unroll 4
    for (int v = 0; v < kDotVecs; ++v) columns[v] = LoadBytes(x + v * Vec::kLanes);
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      const ByteWeights weights = LoadWeights(w + r);
#pragma GCC unroll 4
      for (int v = 0; v < kDotVecs; ++v) sums[r][v] = Dot(columns[v], weights, sums[r][v]);
    }
  }
}

// start[column] = -centre * the sum of the column's `count` bytes, in `k` groups from x on, of
// which those count whose weight in block.ones is 1.
static void StartSums(const QattentionBlock& block, const float* x, int64_t k, int64_t count,
                      int32_t centre, int64_t columns) {
  for (int64_t first = 0; first < columns; first += kDotVecs * Vec::kLanes) {
    IntVec sums[1][kDotVecs];
    for (IntVec& sum : sums[0]) sum = SetInts(static_cast<int32_t>(kByteOffset * count));
    DotTile<1>(block.ones, 1, k, x + first, sums);
    for (int v = 0; v < kDotVecs; ++v) {
      alignas(64) int32_t lane[Vec::kLanes];
      StoreInts(lane, sums[0][v]);
      for (int32_t& sum : lane) sum *= -centre;
      memcpy(block.start + first + v * Vec::kLanes, lane, sizeof(lane));
    }
  }
}

// `count` weights of 1 among `groups` groups, the others 0.
static void FillOnes(const QattentionBlock& block, int64_t groups, int64_t count) {
  for (int64_t g = 0; g < groups; ++g) {
    const int64_t left = count - 4 * g;
    StoreGroup(block.ones + g, left >= 4 ? 0x01010101u : 0x01010101u >> (8 * (4 - left)));
  }
}

// Four rows: what sums begin with in each of the tile's columns.
template <int R>
SRT_INLINE void BeginTile(const int32_t* start, const int32_t (&rows)[R],
                          IntVec (&sums)[R][kDotVecs]) {
#pragma GCC unroll 4
  for (int v = 0; v < kDotVecs; ++v) {
    const IntVec column = LoadInts(start + v * Vec::kLanes);
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) sums[r][v] = AddInts(column, SetInts(rows[r]));
  }
}

// The mask of a tile: `mask` is that of its first key and the block's first query.
SRT_INLINE void AddMask(const MaskStrides& strides, const float* mask, int64_t keys,
                        int64_t queries, int64_t first, ScoreTile& tile) {
  for (int r = 0; r < 4 && r < keys; ++r, mask += strides.key) {
    for (int v = 0; v < kDotVecs; ++v) {
      const int64_t at = first + v * Vec::kLanes;
      const Vec add = strides.query == 0
                          ? Set1(*mask)
                          : LoadMask(mask + at, FirstN(static_cast<int>(queries - at)));
      tile[r][v] = Add(tile[r][v], add);
    }
  }
}

// The scores of all keys with the block's queries, each step done but the softmax, and the largest
// of each query; `mask`: nullptr, or that of the first query.
static void Score(const QattentionArgs& a, const QattentionBlock& block, const float* mask,
                  int64_t queries, int64_t padded) {
  const int32_t k_centre = a.k_zero - kSign;
  const auto features = static_cast<int32_t>(4 * a.planes);
  FillOnes(block, a.planes, features);
  StartSums(block, block.queries, a.planes, features, k_centre, padded);
  const Rounding scores(a.steps[0]);
  const Rounding scaled(a.steps[1]);
  const Rounding masked(a.steps[2]);
  const bool rescales = a.steps[1].factor != 1.0f;
  const Vec lowest = Set1(-__builtin_inff());
  for (int64_t q = 0; q < padded; q += Vec::kLanes) StoreU(block.most + q, lowest);
  for (int64_t t = 0; t < a.keys; t += 4) {
    int32_t rows[4];
    for (int r = 0; r < 4; ++r) {
      rows[r] = (kByteOffset - a.q_zero) * block.k_sums[t + r] + features * a.q_zero * k_centre;
    }
    for (int64_t first = 0; first < padded; first += kDotVecs * Vec::kLanes) {
      IntVec sums[4][kDotVecs];
      BeginTile(block.start + first, rows, sums);
      DotTile<4>(block.k + t, block.keys, a.planes, block.queries + first, sums);
      ScoreTile tile;
#pragma GCC unroll 4
      for (int r = 0; r < 4; ++r) {
#pragma GCC unroll 4
        for (int v = 0; v < kDotVecs; ++v) tile[r][v] = ToFloats(sums[r][v]);
      }
      ScaleTile(scores.factor, tile);
      RoundTile(scores, tile);
      if (rescales) ScaleTile(scaled.factor, tile);
      RoundTile(scaled, tile);
      if (mask != nullptr) AddMask(a.mask, mask + t * a.mask.key, a.keys - t, queries, first, tile);
      RoundTile(masked, tile);
      for (int v = 0; v < kDotVecs; ++v) {
        const int64_t at = first + v * Vec::kLanes;
        Vec most = LoadU(block.most + at);
        for (int r = 0; r < 4 && t + r < a.keys; ++r) {
          most = Max(most, tile[r][v]);
          StoreU(block.scores + (t + r) * kQueryRow + at, tile[r][v]);
        }
        StoreU(block.most + at, most);
      }
    }
  }
}

// Scores become the bytes of their softmax.
static void Share(const QattentionArgs& a, const QattentionBlock& block, int64_t padded) {
  const AttentionStep& step = a.steps[3];
  const Rounding rounding(step);
  const ByteRange range = MakeByteRange(step.zero, step.low, step.high);
  const Vec lowest = Set1(-__builtin_inff());
  for (int64_t q = 0; q < padded; q += Vec::kLanes) {
    float* scores = block.scores + q;
    const Vec max = LoadU(block.most + q);
    const Vec shift = Select(Equal(max, lowest), Zero(), max);
    Vec sum = Zero();
    for (int64_t t = 0; t < a.keys; ++t) {
      const Vec e = Exp(Sub(LoadU(scores + t * kQueryRow), shift));
      StoreU(scores + t * kQueryRow, e);
      sum = Add(sum, e);
    }
    const Vec factor = Select(Equal(sum, Zero()), Zero(), Div(Set1(1.0f), sum));
    for (int64_t t = 0; t < a.keys; t += 4) {
      Vec z[4];
      for (int r = 0; r < 4; ++r) {
        z[r] = Zero();
        if (t + r >= a.keys) continue;
        const Vec share = Mul(LoadU(scores + (t + r) * kQueryRow), factor);
        z[r] = Clamp(Mul(share, rounding.inverse), rounding.low, rounding.high);
      }
      StoreU(block.shares + t / 4 * kQueryRow + q, RoundToBytes(z[0], z[1], z[2], z[3], range));
    }
  }
}

// The products of the shares with the values, as bytes or floats.
static void Weigh(const QattentionArgs& a, const QattentionBlock& block, int64_t queries,
                  int64_t padded, float* y) {
  const int32_t v_centre = a.v_zero - kSign;
  const int32_t p_zero = a.steps[3].zero;
  const AttentionStep& step = a.steps[4];
  const Rounding result(step);
  const ByteRange range = MakeByteRange(step.zero, step.low, step.high);
  FillOnes(block, block.groups, a.keys);
  StartSums(block, block.shares, block.groups, a.keys, v_centre, padded);
  for (int64_t d = 0; d < block.values; d += 4) {
    int32_t rows[4];
    for (int r = 0; r < 4; ++r) {
      rows[r] = (kByteOffset - p_zero) * block.v_sums[d + r] +
                static_cast<int32_t>(a.keys) * p_zero * v_centre;
    }
    for (int64_t first = 0; first < padded; first += kDotVecs * Vec::kLanes) {
      IntVec sums[4][kDotVecs];
      BeginTile(block.start + first, rows, sums);
      DotTile<4>(block.v + d / 4 * block.keys, 4, block.groups, block.shares + first, sums);
      for (int v = 0; v < kDotVecs; ++v) {
        const int64_t at = first + v * Vec::kLanes;
        const Mask lanes = FirstN(static_cast<int>(queries - at));
        Vec z[4];
        for (int r = 0; r < 4; ++r) z[r] = Mul(ToFloats(sums[r][v]), result.factor);
        if (a.y_is_float) {
          for (int r = 0; r < 4; ++r) StoreMask(y + (d + r) * a.y.plane + at, lanes, z[r]);
        } else {
          for (Vec& value : z) value = Clamp(Mul(value, result.inverse), result.low, result.high);
          StoreMask(y + d / 4 * a.y.plane + at, lanes, RoundToBytes(z[0], z[1], z[2], z[3], range));
        }
      }
    }
  }
}

static void Qattention(const void* args_block, void* const* io, int64_t begin, int64_t end,
                       void* scratch) {
  const QattentionArgs& a = *static_cast<const QattentionArgs*>(args_block);
  const QattentionBlock block(a, static_cast<float*>(scratch));
  const auto head_of = [](void* operand, const PlaneStrides& s, int64_t batch, int64_t planes,
                          int64_t head) {
    return static_cast<float*>(operand) + batch * s.batch + head * planes * s.plane;
  };
  constexpr int64_t kStep = static_cast<int64_t>(kDotVecs) * Vec::kLanes;
  for (int64_t item = begin; item < end; ++item) {
    const int64_t batch = item / a.heads;
    const int64_t head = item % a.heads;
    const float* q = head_of(io[0], a.q, batch, a.planes, head);
    TurnKeys(a, head_of(io[1], a.k, batch, a.planes, head), block);
    TurnValues(a, head_of(io[2], a.v, batch, a.value_planes, head), block);
    float* y = head_of(io[4], a.y, batch, a.y_is_float ? block.values : a.value_planes, head);
    const float* mask = static_cast<const float*>(io[3]);
    if (mask != nullptr) mask += batch * a.mask.batch + head * a.mask.head;
    for (int64_t first = 0; first < a.queries; first += kQueryRow) {
      const int64_t queries = a.queries - first < kQueryRow ? a.queries - first : kQueryRow;
      const int64_t padded = (queries + kStep - 1) / kStep * kStep;
      for (int64_t p = 0; p < a.planes; ++p) {
        for (int64_t i = 0; i < padded; i += Vec::kLanes) {
          StoreU(block.queries + p * kQueryRow + i,
                 LoadMask(q + p * a.q.plane + first + i, FirstN(static_cast<int>(queries - i))));
        }
      }
      Score(a, block, mask == nullptr ? nullptr : mask + first * a.mask.query, queries, padded);
      Share(a, block, padded);
      Weigh(a, block, queries, padded, y + first);
    }
  }
}

}  // namespace SRT_ISA
}  // namespace sparsert
