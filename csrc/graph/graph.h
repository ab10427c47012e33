// The graph as read from a .sprt file: constant tables that point into the file's bytes.
#pragma once

#include <cstdint>

#include "base/array.h"
#include "base/functions.h"
#include "base/span.h"
#include "base/status.h"
#include "base/tensor_desc.h"

namespace sparsert {

enum class Op : uint16_t {
#define SRT_OP(number, name) k##name = number,
#include "graph/ops.inc"
#undef SRT_OP
};

enum class AttrKey : uint16_t {
#define SRT_ATTR(number, name) k_##name = number,
#include "graph/attrs.inc"
#undef SRT_ATTR
};

const char* OpName(Op op);  // "Conv"; nullptr for an unknown number

// Whether input `input` of a node is a matrix of weights, which plans pack or decode.
bool IsWeight(Op op, size_t input);

constexpr uint32_t kNoTensor = 0xffffffffu;
constexpr uint8_t kUnknownRank = 254;

enum class Encoding : uint8_t { kDense = 0, kBitmask = 1, kBlock = 2 };
enum class IndexKind : uint8_t { kDelta8 = 0, kU16 = 1, kU32 = 2 };

// A constant's bytes as stored, a matrix of rows x cols. Validated by the reader: every index is
// in range and every stream has its full length.
struct EncodedTensor {
  Encoding encoding = Encoding::kDense;
  DType value_dtype = DType::kF32;  // how values are stored (f32 or f16 for floats)
  IndexKind index_kind = IndexKind::kU16;
  uint16_t block_rows = 1;
  uint16_t block_cols = 1;
  int64_t rows = 0;
  int64_t cols = 0;
  uint64_t stored_values = 0;  // values present, the padding of blocks included
  uint64_t stored_bytes = 0;   // the whole encoding
  uint64_t index_bytes = 0;
  const uint8_t* bits = nullptr;      // kBitmask: [(rows * cols + 7) / 8]
  const uint32_t* row_ptr = nullptr;  // kBlock: [ceil(rows / block_rows) + 1]
  const uint8_t* index = nullptr;     // kBlock: [index_bytes]
  const uint8_t* values = nullptr;    // [stored_values] of value_dtype
  // Of a level: bit i >> keep_shift (least significant first) says whether stored value i counts,
  // else it is 0; and what the values of each row are multiplied with. nullptr: all, and 1.
  const uint8_t* keep = nullptr;
  int keep_shift = 0;
  const float* row_scale = nullptr;  // [rows]

  // Row-major values of value_dtype, used as they are.
  bool is_plain() const {
    return encoding == Encoding::kDense && keep == nullptr && row_scale == nullptr;
  }
};

struct Tensor {
  StrView name;
  DType dtype = DType::kF32;
  bool is_constant = false;
  uint8_t rank = 0;               // kUnknownRank for an activation without a shape hint
  const int64_t* dims = nullptr;  // [rank]; negative -(s + 1) is symbol s
  EncodedTensor data;             // constants only
};

struct Attr {
  AttrKey key;
  uint8_t type;  // 0 int, 1 float, 2 ints, 3 floats, 4 string
  int64_t i = 0;
  float f = 0.0f;
  Span<int64_t> ints;
  Span<float> floats;
  StrView string;
};

struct Node {
  Op op;
  StrView name;
  Span<uint32_t> inputs;   // tensor indices, kNoTensor = absent
  Span<uint32_t> outputs;  // tensor indices
  Span<Attr> attrs;

  const Attr* FindAttr(AttrKey key) const;
  int64_t IntAttr(AttrKey key, int64_t fallback) const;
  float FloatAttr(AttrKey key, float fallback) const;
  Span<int64_t> IntsAttr(AttrKey key) const;  // empty when absent
  uint32_t Input(size_t i) const { return i < inputs.size ? inputs[i] : kNoTensor; }
};

// A tensor that differs between levels, as one level has it; as in the file. `keep` and `scale` are
// constants or kNoTensor.
struct LevelPatch {
  uint32_t tensor;
  uint32_t unit;   // stored values that a bit of `keep` stands for; 0: `keep` takes its place
  uint32_t keep;   // bits of the units that the level before has; kNoTensor: as there
  uint32_t scale;  // [rows] f32
};

struct Level {
  StrView name;
  Span<LevelPatch> patches;  // the same tensors and units in every level
};

// Owns its tables; names, dims, indices and constants point into the file's bytes, which must
// outlive it. Nodes are in topological order and every tensor has at most one producer.
struct Graph {
  explicit Graph(const Allocator* allocator)
      : tensors(allocator),
        nodes(allocator),
        attrs(allocator),
        symbols(allocator),
        levels(allocator) {}

  Array<Tensor> tensors;
  Array<Node> nodes;
  Array<Attr> attrs;
  Array<StrView> symbols;
  Array<Level> levels;     // the densest first; none in most files
  Span<uint32_t> inputs;   // tensor indices
  Span<uint32_t> outputs;  // tensor indices
  StrView metadata;        // JSON text, not parsed here
};

}  // namespace sparsert
