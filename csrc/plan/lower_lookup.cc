// Lowers a Gather of rows of a table that is smaller encoded than decoded, such as a pruned
// embedding: it is read where it lies in the file.
#include <cstdio>

#include "kernels/gather/gather.h"
#include "kernels/lookup/lookup.h"
#include "plan/builder.h"

namespace sparsert {
namespace {

bool ReadsRows(const Graph& graph, const Node& node) {
  if (node.op != Op::kGather) return false;
  const Tensor& table = graph.tensors[node.Input(0)];
  const int64_t axis = node.IntAttr(AttrKey::k_axis, 0);
  return table.is_constant && table.dtype == DType::kF32 && table.rank == 2 &&
         (axis == 0 || axis == -2) && node.Input(1) != node.Input(0);
}

TableRows ViewTable(const EncodedTensor& data, const uint32_t* starts) {
  TableRows table = {};
  table.kind = data.encoding == Encoding::kDense     ? TableRows::kDense
               : data.encoding == Encoding::kBitmask ? TableRows::kBitmask
                                                     : TableRows::kBlock;
  table.is_half = data.value_dtype == DType::kF16;
  table.column_bytes = data.index_kind == IndexKind::kDelta8 ? 1
                       : data.index_kind == IndexKind::kU16  ? 2
                                                             : 4;
  table.block_rows = data.block_rows;
  table.block_cols = data.block_cols;
  table.rows = data.rows;
  table.cols = data.cols;
  table.bits = data.bits;
  table.row_ptr = data.row_ptr;
  table.columns = data.index;
  table.values = data.values;
  table.starts = starts;
  return table;
}

}  // namespace

bool IsLookup(const Graph& graph, const Node& node) {
  if (!ReadsRows(graph, node)) return false;
  const EncodedTensor& data = graph.tensors[node.Input(0)].data;
  const bool is_plain = data.encoding == Encoding::kDense && data.value_dtype == DType::kF32;
  constexpr uint64_t kMaxU32 = UINT32_MAX;
  if (is_plain || data.stored_values > kMaxU32 || data.index_bytes > kMaxU32) return false;
  // A table that some other node reads decoded is in memory anyway.
  for (const Node& other : graph.nodes) {
    for (size_t i = 0; i < other.inputs.size; ++i) {
      if (other.inputs[i] != node.Input(0)) continue;
      const bool is_weight = i == 1 && (other.op == Op::kLinear || other.op == Op::kConv);
      if (!is_weight && !ReadsRows(graph, other)) return false;
    }
  }
  for (uint32_t output : graph.outputs) {
    if (output == node.Input(0)) return false;
  }
  return true;
}

Status LowerLookup(PlanBuilder* b) {
  const Node& node = *b->node;
  const uint32_t table = node.Input(0);
  const uint32_t indices = node.Input(1);
  const uint32_t y = node.outputs[0];
  const EncodedTensor& data = b->graph.tensors[table].data;
  const int64_t* resolved = nullptr;
  if (b->facts(indices).is_known) {
    const Span<int64_t> known = b->plan->facts.Known(indices);
    auto* rows = b->plan->memory.Allocate<int64_t>(known.size + 1);
    if (rows == nullptr) return Status::OutOfMemory("rows to look up", known.size * 8);
    SRT_RETURN_IF_ERROR(
        NormalizeIndices(known.data, static_cast<int64_t>(known.size), data.rows, rows));
    resolved = rows;
  }
  Span<uint32_t> starts;
  SRT_RETURN_IF_ERROR(b->weights->RowStarts(table, &starts));
  LookupArgs* args = nullptr;
  SRT_RETURN_IF_ERROR(b->NewArgs(&args));
  *args = MakeLookupArgs(ViewTable(data, starts.data), resolved, b->desc(indices), b->desc(y));
  Kernel kernel;
  if (!SelectLookup(*args, b->options.isa, &kernel)) {
    return b->Fail(StatusCode::kInternal, "no kernel for these operands");
  }
  NodePlan& info = b->info();
  info.compute_format = "rows";
  info.packed_bytes = starts.size * sizeof(uint32_t);
  constexpr double kMega = 1e6;
  snprintf(info.reason, sizeof(info.reason),
           "stays as it is stored, rows are expanded when they are looked up: %.3g MB instead of "
           "%.3g MB decoded",
           static_cast<double>(data.stored_bytes + info.packed_bytes) / kMega,
           static_cast<double>(data.rows * data.cols) * sizeof(float) / kMega);
  b->weights->Forget(table);
  const bool at_run_time = resolved == nullptr;
  const IoRef io[] = {b->ref(y), at_run_time ? b->ref(indices) : IoRef(), FaultRef()};
  return b->AddStep(kernel, args, {io, at_run_time ? size_t{3} : size_t{2}}, LookupItems(*args),
                    LookupScratch(*args), static_cast<double>(b->facts(y).shape.elements()) * 0.5);
}

}  // namespace sparsert
