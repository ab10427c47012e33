// Lowers Resize.
#include <cstdio>
#include <cstring>

#include "graph/resolve.h"
#include "kernels/resize/resize.h"
#include "plan/builder.h"

namespace sparsert {
namespace {

// Moves a pointer into `from` to the same place in `to`.
template <typename T>
const T* Rebase(const T* p, const int32_t* from, const int32_t* to) {
  if (p == nullptr) return nullptr;
  return reinterpret_cast<const T*>(to + (reinterpret_cast<const int32_t*>(p) - from));
}

}  // namespace

Status LowerResize(PlanBuilder* b) {
  const Node& node = *b->node;
  const uint32_t x = node.Input(0);
  const uint32_t y = node.outputs[0];
  ResizeRange range;
  SRT_RETURN_IF_ERROR(ResolveResize(NodeView(b->graph, b->plan->facts, node), &range));
  ResizeSpec spec;
  spec.mode = static_cast<ResizeMode>(node.IntAttr(AttrKey::k_mode, 0));
  spec.coordinates =
      static_cast<CoordinateMode>(node.IntAttr(AttrKey::k_coordinate_transformation_mode, 0));
  spec.nearest = static_cast<NearestMode>(node.IntAttr(AttrKey::k_nearest_mode, 0));
  memcpy(spec.scale, range.scale, sizeof(spec.scale));

  ResizeArgs* args = nullptr;
  SRT_RETURN_IF_ERROR(b->NewArgs(&args));
  Array<int32_t> tables(b->weights->allocator());
  SRT_RETURN_IF_ERROR(MakeResizeArgs(spec, b->desc(x), b->desc(y), &tables, args));
  // The tables live as long as the plan.
  int32_t* kept = b->plan->memory.Allocate<int32_t>(tables.size());
  if (kept == nullptr) return Status::OutOfMemory("resize tables", tables.size_bytes());
  memcpy(kept, tables.data(), tables.size_bytes());
  for (const int32_t*& index : args->index) index = Rebase(index, tables.data(), kept);
  for (int d = 0; d < 2; ++d) {
    args->low[d] = Rebase(args->low[d], tables.data(), kept);
    args->high[d] = Rebase(args->high[d], tables.data(), kept);
    args->weight[d] = Rebase(args->weight[d], tables.data(), kept);
  }

  Kernel kernel;
  if (!SelectResize(*args, b->options.isa, &kernel)) {
    return b->Fail(StatusCode::kInternal, "no kernel for these operands");
  }
  snprintf(b->info().reason, sizeof(b->info().reason), "%s, tables made at plan time",
           spec.mode == ResizeMode::kLinear ? "linear" : "nearest");
  const IoRef io[] = {b->ref(x), b->ref(y)};
  return b->AddStep(kernel, args, {io, 2}, ResizeItems(*args), ResizeScratch(*args),
                    static_cast<double>(b->facts(y).shape.elements()) * 0.5);
}

}  // namespace sparsert
