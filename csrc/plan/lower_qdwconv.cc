// Depthwise convolutions of packed bytes: square windows of 3 or 5.
#include "plan/lower_qdwconv.h"

#include <cstdio>

#include "kernels/qdwconv/qdwconv.h"
#include "plan/conv_operands.h"

namespace sparsert {

bool IsQdwconv(const Window& w) {
  return w.kernel[0] == w.kernel[1] && (w.kernel[0] == 3 || w.kernel[0] == 5) &&
         w.stride[0] == w.stride[1] && w.stride[0] <= 2 && w.dilation[0] == 1 && w.dilation[1] == 1;
}

Status LowerQdwconv(PlanBuilder* b, const SpmmOperands& o) {
  const QspmmArgs& q = *o.quantised;
  const Window& w = o.window;
  Kernel kernel;
  int byte_offset = 0;
  if (!SelectQdwconv(b->options.isa, &kernel, &byte_offset)) {
    return b->Fail(StatusCode::kInternal, "no kernel for these operands");
  }
  QdwconvArgs* args = nullptr;
  SRT_RETURN_IF_ERROR(b->NewArgs(&args));
  const int64_t planes = o.key.groups;
  const auto size = static_cast<int>(w.kernel[0]);
  args->batch = o.batch;
  args->planes = planes;
  args->kernel = size;
  args->stride = static_cast<int32_t>(w.stride[0]);
  PlaceWindow(w, args);
  args->x_image = o.x_image;
  args->x_plane = o.x_row;
  args->y_image = o.y_image;
  args->y_plane = o.y_row;
  args->scale = q.scale;
  args->fill = q.fill;
  args->zero = q.zero;
  args->low = q.low;
  args->high = q.high;

  const int64_t row_bytes = QdwconvTapGroups(size) * 16;  // taps of four channels
  const auto bytes = static_cast<size_t>(planes * size * row_bytes);
  auto* start = b->plan->memory.Allocate<int32_t>(static_cast<size_t>(planes * 4));
  auto* weights = b->plan->memory.Allocate<int8_t>(bytes);  // zeros
  if (start == nullptr || weights == nullptr) return Status::OutOfMemory("depthwise", bytes);
  for (int64_t c = 0; c < planes * 4; ++c) {
    start[c] = static_cast<int32_t>(o.row_start[c] + byte_offset * o.row_weights[c]);
  }
  Array<float> scratch(b->weights->allocator());
  const float* values = nullptr;  // [channels][kernel][kernel]
  SRT_RETURN_IF_ERROR(b->weights->DenseUncached(o.key.tensor, &scratch, &values));
  const int64_t channels = b->graph.tensors[o.key.tensor].dims[0];
  for (int64_t c = 0; c < channels; ++c) {
    for (int64_t row = 0; row < size; ++row) {
      int8_t* to = weights + (c / 4 * size + row) * row_bytes + c % 4 * 4;
      for (int64_t tap = 0; tap < size; ++tap) {
        to[tap / 4 * 16 + tap % 4] = static_cast<int8_t>(*values++);
      }
    }
  }
  args->start = start;
  args->weights = weights;

  NodePlan& info = b->info();
  info.compute_format = "dense";
  info.packed_bytes = bytes;
  snprintf(info.reason, sizeof(info.reason),
           "depthwise: %d weights per channel, bound by reading activations", size * size);
  const IoRef io[] = {o.x, o.y};
  // Rows are computed in whole vectors, those of a stride from two each.
  constexpr int64_t kRowLanes = 16;
  const int64_t row = (w.out[1] + kRowLanes - 1) / kRowLanes * kRowLanes;
  const double ns = w.stride[1] == 1 ? 0.2 : 0.34;
  const double work_ns = static_cast<double>(QdwconvItems(*args) * w.out[0] * row) * size * ns;
  return b->AddStep(kernel, args, {io, 2}, QdwconvItems(*args), 0, work_ns);
}

}  // namespace sparsert
