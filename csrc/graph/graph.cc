// Names of ops and lookup of attributes.
#include "graph/graph.h"

namespace sparsert {

const char* OpName(Op op) {
  switch (op) {
#define SRT_OP(number, name) \
  case Op::k##name:          \
    return #name;
#include "graph/ops.inc"
#undef SRT_OP
  }
  return nullptr;
}

bool IsWeight(Op op, size_t input) {
  switch (op) {
    case Op::kConv:
    case Op::kConvTranspose:
    case Op::kLinear:
    case Op::kQConv:
    case Op::kQConvDynamic:
    case Op::kQDepthwise:
      return input == 1;
    case Op::kRecurrent:
      return input == 1 || input == 3;
    default:
      return false;
  }
}

const Attr* Node::FindAttr(AttrKey key) const {
  for (const Attr& attr : attrs) {
    if (attr.key == key) return &attr;
  }
  return nullptr;
}

int64_t Node::IntAttr(AttrKey key, int64_t fallback) const {
  const Attr* attr = FindAttr(key);
  return attr != nullptr && attr->type == 0 ? attr->i : fallback;
}

float Node::FloatAttr(AttrKey key, float fallback) const {
  const Attr* attr = FindAttr(key);
  return attr != nullptr && attr->type == 1 ? attr->f : fallback;
}

Span<int64_t> Node::IntsAttr(AttrKey key) const {
  const Attr* attr = FindAttr(key);
  return attr != nullptr && attr->type == 2 ? attr->ints : Span<int64_t>();
}

}  // namespace sparsert
