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

// The tables live as long as the plan.
Status KeepTables(PlanBuilder* b, const Array<int32_t>& tables, const int32_t** kept) {
  int32_t* copy = b->plan->memory.Allocate<int32_t>(tables.size());
  if (copy == nullptr) return Status::OutOfMemory("resize tables", tables.size_bytes());
  memcpy(copy, tables.data(), tables.size_bytes());
  *kept = copy;
  return Status::Ok();
}

// One step per dimension that changes, those first that shrink the most.
Status LowerByAxis(PlanBuilder* b, const ResizeSpec& spec) {
  const uint32_t x = b->node->Input(0);
  const uint32_t y = b->node->outputs[0];
  if (b->facts(x).dtype != DType::kF32) {
    return b->Fail(StatusCode::kUnsupported, "only float32 can be resized in this way");
  }
  Shape shape = b->facts(x).shape;
  const Shape& out = b->facts(y).shape;
  snprintf(b->info().reason, sizeof(b->info().reason),
           "one dimension after the other, weights made at plan time");
  bool left[kMaxRank] = {};
  int count = 0;
  const bool is_crop = spec.coordinates == CoordinateMode::kTfCropAndResize;
  for (int d = 0; d < out.rank; ++d) {
    left[d] = shape.dims[d] != out.dims[d] || spec.scale[d] != 1.0f ||
              (is_crop && (spec.begin[d] != 0.0f || spec.end[d] != 1.0f));
    count += left[d] ? 1 : 0;
  }
  if (count == 0 || out.elements() == 0) {
    return b->AddCopy(b->desc(x), b->ref(x), b->desc(y), b->ref(y));
  }
  IoRef io[2];
  SRT_RETURN_IF_ERROR(b->Plain(x, &io[0]));
  for (; count > 0; --count) {
    int axis = -1;
    const auto growth = [&](int d) {
      return static_cast<double>(out.dims[d]) / static_cast<double>(shape.dims[d]);
    };
    for (int d = 0; d < out.rank; ++d) {
      if (left[d] && (axis < 0 || growth(d) < growth(axis))) axis = d;
    }
    left[axis] = false;
    int64_t outer = 1;
    int64_t inner = 1;
    for (int d = 0; d < axis; ++d) outer *= shape.dims[d];
    for (int d = axis + 1; d < out.rank; ++d) inner *= shape.dims[d];
    ResizeAxisArgs* args = nullptr;
    SRT_RETURN_IF_ERROR(b->NewArgs(&args));
    Array<int32_t> tables(b->weights->allocator());
    SRT_RETURN_IF_ERROR(MakeResizeAxisArgs(spec, outer, shape.dims[axis], out.dims[axis], inner,
                                           axis, &tables, args));
    const int32_t* kept = nullptr;
    SRT_RETURN_IF_ERROR(KeepTables(b, tables, &kept));
    args->index = Rebase(args->index, tables.data(), kept);
    args->weight = Rebase(args->weight, tables.data(), kept);
    args->base = Rebase(args->base, tables.data(), kept);
    shape.dims[axis] = out.dims[axis];
    const int64_t elements = shape.elements();
    if (count == 1) {
      SRT_RETURN_IF_ERROR(b->PlainOutput(y, &io[1]));
    } else {
      SRT_RETURN_IF_ERROR(b->Temporary(static_cast<size_t>(elements) * sizeof(float), &io[1]));
    }
    Kernel kernel;
    if (!SelectResizeAxis(*args, b->options.isa, &kernel)) {
      return b->Fail(StatusCode::kInternal, "no kernel for these operands");
    }
    SRT_RETURN_IF_ERROR(
        b->AddStep(kernel, args, {io, 2}, ResizeAxisItems(*args), 0,
                   static_cast<double>(elements) * static_cast<double>(args->taps) * 0.2));
    if (count > 1) io[0] = io[1];
  }
  return b->FinishPlain(y, io[1]);
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
  memcpy(spec.begin, range.begin, sizeof(spec.begin));
  memcpy(spec.end, range.end, sizeof(spec.end));
  spec.antialias = node.IntAttr(AttrKey::k_antialias, 0) != 0 && spec.mode != ResizeMode::kNearest;
  spec.exclude_outside = node.IntAttr(AttrKey::k_exclude_outside, 0) != 0;
  spec.cubic_a = node.FloatAttr(AttrKey::k_cubic_coeff_a, -0.75f);
  spec.extrapolation = node.FloatAttr(AttrKey::k_extrapolation_value, 0.0f);
  if (ResizesByAxis(spec, b->desc(x), b->desc(y))) return LowerByAxis(b, spec);

  ResizeArgs* args = nullptr;
  SRT_RETURN_IF_ERROR(b->NewArgs(&args));
  Array<int32_t> tables(b->weights->allocator());
  SRT_RETURN_IF_ERROR(MakeResizeArgs(spec, b->desc(x), b->desc(y), &tables, args));
  const int32_t* kept = nullptr;
  SRT_RETURN_IF_ERROR(KeepTables(b, tables, &kept));
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
                    static_cast<double>(b->facts(y).shape.elements()) *
                        (spec.mode == ResizeMode::kLinear ? 0.5 : 0.1));
}

}  // namespace sparsert
