// What a node of each op may look like: numbers of inputs and outputs, attributes and their types.
#pragma once

#include <cstdint>

#include "graph/graph.h"
#include "modelfile/problems.h"

namespace sparsert {

constexpr uint32_t kVariadic = 65535;
constexpr int kMaxAttrKey = 63;
constexpr size_t kMaxAttrInts = 16;

enum class AttrType : uint8_t { kInt = 0, kFloat = 1, kInts = 2, kFloats = 3, kString = 4 };

struct OpRule {
  Op op;
  uint32_t min_inputs;  // the first min_inputs must be present; all of them when variadic
  uint32_t max_inputs;
  uint32_t min_outputs;
  uint32_t max_outputs;
  uint32_t constants;  // bit i: input i must be a constant when present
  uint64_t attrs;      // bit k: attribute key k may be there
  uint64_t required;   // bit k: attribute key k must be there
};

// nullptr for an unknown op.
const OpRule* FindOpRule(Op op);

const char* AttrName(AttrKey key);  // "strides"; nullptr for an unknown key

// Bit t: the attribute may have AttrType t. 0 for an unknown key.
uint32_t AttrTypes(AttrKey key);

// Checks the value of an attribute that has the right type. `where` starts each problem.
void CheckAttrValue(Op op, const Attr& attr, const char* where, Problems* problems);

// Checks what a node's attributes and constants say about each other: lengths of strides and pads
// against the rank of the weights, sizes of biases, groups.
void CheckGeometry(const Graph& graph, const Node& node, const char* where, Problems* problems);

}  // namespace sparsert
