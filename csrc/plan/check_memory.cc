// Sizes of tensors and arenas against a limit.
#include "plan/check_memory.h"

#include <cinttypes>

#include "graph/node_view.h"

namespace sparsert {

namespace {

// Tensor `t`, an output of `node`.
Status CheckBytes(const Graph& graph, const Node& node, uint32_t t, const ShapeTable& table,
                  uint64_t limit) {
  if (t == kNoTensor || table.facts[t].is_known) return Status::Ok();
  const TensorFacts& f = table.facts[t];
  // Shapes within the limits of inference: the product fits.
  const uint64_t bytes = static_cast<uint64_t>(f.shape.elements()) * DTypeSize(f.dtype);
  if (bytes <= limit) return Status::Ok();
  return NodeError(node, StatusCode::kOutOfMemory,
                   "output '%s' %s of %s needs %" PRIu64 " bytes, more than the limit of %" PRIu64
                   " (the memory of this machine, or SPARSERT_MEMORY_LIMIT)",
                   NameText(graph.tensors[t].name).text, ShapeText(f.shape).text,
                   DTypeName(f.dtype), bytes, limit);
}

}  // namespace

Status CheckTensorBytes(const Graph& graph, const ShapeTable& table, uint64_t limit) {
  if (limit == 0) return Status::Ok();
  for (const Node& node : graph.nodes) {
    for (const uint32_t t : node.outputs) {
      SRT_RETURN_IF_ERROR(CheckBytes(graph, node, t, table, limit));
    }
  }
  return Status::Ok();
}

Status CheckOutputBytes(const Graph& graph, const ShapeTable& table, uint64_t limit) {
  if (limit == 0) return Status::Ok();
  for (const Node& node : graph.nodes) {
    for (const uint32_t t : node.outputs) {
      bool leaves = false;
      for (const uint32_t output : graph.outputs) leaves |= output == t;
      if (leaves) SRT_RETURN_IF_ERROR(CheckBytes(graph, node, t, table, limit));
    }
  }
  return Status::Ok();
}

Status CheckArenaBytes(const Plan& plan, uint64_t limit) {
  const uint64_t bytes = plan.arena_bytes();
  if (limit == 0 || bytes <= limit) return Status::Ok();
  return Status::Error(StatusCode::kOutOfMemory,
                       "a run with these shapes needs %" PRIu64
                       " bytes, more than the limit of %" PRIu64
                       " (the memory of this machine, or SPARSERT_MEMORY_LIMIT)",
                       bytes, limit);
}

}  // namespace sparsert
