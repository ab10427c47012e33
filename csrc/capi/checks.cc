// Checks of what a C program hands in.
#include "capi/checks.h"

#include "graph/node_view.h"

namespace sparsert {
namespace {

// The tensor's name, limited to what a message has room for.
NameText NameOf(const srt_plan* plan, uint32_t tensor) {
  return NameText(plan->model->graph.tensors[tensor].name);
}

bool Overlap(const void* a, size_t a_bytes, const void* b, size_t b_bytes) {
  const auto x = reinterpret_cast<uintptr_t>(a);
  const auto y = reinterpret_cast<uintptr_t>(b);
  return a_bytes != 0 && b_bytes != 0 && x < y + b_bytes && y < x + a_bytes;
}

// `side`: "input" or "output".
Status CheckBuffers(const srt_plan* plan, const char* side, Span<uint32_t> tensors,
                    const void* const* buffers, const size_t* bytes, int32_t count) {
  if (count < 0 || static_cast<size_t>(count) != tensors.size) {
    return Status::Error(StatusCode::kInvalidArgument, "%d %ss, the model has %zu", count, side,
                         tensors.size);
  }
  if (count != 0 && (buffers == nullptr || bytes == nullptr)) {
    return Status::Error(StatusCode::kInvalidArgument, "%ss or %s_bytes is NULL", side, side);
  }
  for (size_t i = 0; i < tensors.size; ++i) {
    const size_t want = TensorBytes(plan, tensors[i]);
    const size_t alignment = DTypeSize(plan->model->graph.tensors[tensors[i]].dtype);
    if (bytes[i] != want) {
      return Status::Error(StatusCode::kInvalidArgument,
                           "%s %zu '%s' is %zu bytes, expected %zu (srt_plan_%s_bytes)", side, i,
                           NameOf(plan, tensors[i]).text, bytes[i], want, side);
    }
    if (want != 0 && buffers[i] == nullptr) {
      return Status::Error(StatusCode::kInvalidArgument, "%s %zu '%s' is NULL", side, i,
                           NameOf(plan, tensors[i]).text);
    }
    if (want != 0 && reinterpret_cast<uintptr_t>(buffers[i]) % alignment != 0) {
      return Status::Error(StatusCode::kInvalidArgument,
                           "%s %zu '%s' is not aligned to its elements of %zu bytes", side, i,
                           NameOf(plan, tensors[i]).text, alignment);
    }
  }
  return Status::Ok();
}

Status CheckOverlaps(const srt_plan* plan, const srt_run& run) {
  for (int32_t i = 0; i < run.output_count; ++i) {
    const void* output = run.outputs[i];
    const size_t bytes = run.output_bytes[i];
    bool overlaps = Overlap(output, bytes, run.arena, run.arena_bytes);
    for (int32_t k = 0; k < run.input_count && !overlaps; ++k) {
      overlaps = Overlap(output, bytes, run.inputs[k], run.input_bytes[k]);
    }
    for (int32_t k = 0; k < i && !overlaps; ++k) {
      overlaps = Overlap(output, bytes, run.outputs[k], run.output_bytes[k]);
    }
    if (overlaps) {
      return Status::Error(StatusCode::kInvalidArgument,
                           "output %d '%s' overlaps the arena, an input or another output", i,
                           NameOf(plan, plan->model->graph.outputs[i]).text);
    }
  }
  for (int32_t i = 0; i < run.input_count; ++i) {
    if (Overlap(run.inputs[i], run.input_bytes[i], run.arena, run.arena_bytes)) {
      return Status::Error(StatusCode::kInvalidArgument, "input %d '%s' overlaps the arena", i,
                           NameOf(plan, plan->model->graph.inputs[i]).text);
    }
  }
  return Status::Ok();
}

}  // namespace

Status NullArgument(const char* what) {
  return Status::Error(StatusCode::kInvalidArgument, "%s is NULL", what);
}

Status CheckOptions(const srt_options& o) {
  if (o.struct_bytes != sizeof(srt_options)) {
    return Status::Error(StatusCode::kInvalidArgument,
                         "srt_options is %u bytes, this library expects %zu", o.struct_bytes,
                         sizeof(srt_options));
  }
  if (o.abi_version != SRT_ABI_VERSION) {
    return Status::Error(StatusCode::kInvalidArgument,
                         "srt_options.abi_version is %d, this library has ABI version %d: compile "
                         "with its sparsert.h, and begin with SRT_OPTIONS_INIT",
                         o.abi_version, SRT_ABI_VERSION);
  }
  if (o.allocator != nullptr &&
      (o.allocator->allocate == nullptr || o.allocator->release == nullptr)) {
    return NullArgument("a function of the allocator");
  }
  return Status::Ok();
}

size_t TensorBytes(const srt_plan* plan, uint32_t tensor) {
  return static_cast<size_t>(plan->plan.facts.facts[tensor].shape.elements()) *
         DTypeSize(plan->model->graph.tensors[tensor].dtype);
}

Status CheckRun(const srt_plan* plan, const srt_run& run) {
  if (run.struct_bytes != sizeof(srt_run)) {
    return Status::Error(StatusCode::kInvalidArgument,
                         "srt_run is %u bytes, this library expects %zu", run.struct_bytes,
                         sizeof(srt_run));
  }
  const size_t arena = plan->plan.arena_bytes();
  if (run.arena_bytes < arena) {
    return Status::Error(StatusCode::kInvalidArgument,
                         "the arena is %zu bytes, this plan needs %zu (srt_plan_arena_bytes)",
                         run.arena_bytes, arena);
  }
  if (arena != 0 && run.arena == nullptr) return NullArgument("the arena");
  if (arena != 0 && reinterpret_cast<uintptr_t>(run.arena) % kCacheLine != 0) {
    return Status::Error(StatusCode::kInvalidArgument, "the arena must be %zu-byte aligned",
                         kCacheLine);
  }
  const Graph& graph = plan->model->graph;
  SRT_RETURN_IF_ERROR(
      CheckBuffers(plan, "input", graph.inputs, run.inputs, run.input_bytes, run.input_count));
  SRT_RETURN_IF_ERROR(
      CheckBuffers(plan, "output", graph.outputs, run.outputs, run.output_bytes, run.output_count));
  SRT_RETURN_IF_ERROR(CheckOverlaps(plan, run));
  const auto steps = static_cast<int32_t>(plan->plan.steps.size());
  if (run.step_ns != nullptr && run.step_count != steps) {
    return Status::Error(StatusCode::kInvalidArgument,
                         "step_ns has room for %d steps, this plan has %d (srt_plan_step_count)",
                         run.step_count, steps);
  }
  return Status::Ok();
}

Status CheckValues(const srt_model* model, Span<Shape> shapes, const void* const* values,
                   const size_t* value_bytes) {
  if (value_bytes == nullptr) return NullArgument("value_bytes");
  for (size_t i = 0; i < shapes.size; ++i) {
    if (values[i] == nullptr) continue;
    const Tensor& tensor = model->graph.tensors[model->graph.inputs[i]];
    const size_t element = DTypeSize(tensor.dtype);
    size_t want = element;
    for (int d = 0; d < shapes[i].rank; ++d) {
      const int64_t dim = shapes[i].dims[d];
      if (dim < 0 || (dim != 0 && want > SIZE_MAX / static_cast<size_t>(dim))) {
        return Status::Error(StatusCode::kShape, "the shape of input %zu '%s' is not a size", i,
                             NameText(tensor.name).text);
      }
      want *= static_cast<size_t>(dim);
    }
    if (value_bytes[i] != want || reinterpret_cast<uintptr_t>(values[i]) % element != 0) {
      return Status::Error(
          StatusCode::kInvalidArgument,
          "the value of input %zu '%s' is %zu bytes%s, expected %zu aligned to %zu", i,
          NameText(tensor.name).text, value_bytes[i], value_bytes[i] == want ? ", misaligned" : "",
          want, element);
    }
  }
  return Status::Ok();
}

}  // namespace sparsert
