// What the lowerings of convolutions share.
#include "plan/conv_operands.h"

#include "kernels/phases/phases.h"

namespace sparsert {

bool IsPointwise(const Window& w) {
  for (int d = 0; d < 2; ++d) {
    if (w.kernel[d] != 1 || w.stride[d] != 1 || w.pad_begin[d] != 0 || w.in[d] != w.out[d]) {
      return false;
    }
  }
  return true;
}

bool IsSubsampled(const Window& w) {
  bool strided = false;
  for (int d = 0; d < 2; ++d) {
    if (w.kernel[d] != 1 || w.pad_begin[d] != 0 ||
        w.out[d] != (w.in[d] + w.stride[d] - 1) / w.stride[d]) {
      return false;
    }
    strided = strided || w.stride[d] > 1;
  }
  return strided && w.in[0] * w.in[1] <= INT32_MAX;
}

bool GainsByPhases(const Window& w) {
  constexpr int64_t kManyReads = 8;  // of an element, by the taps
  if (w.stride[1] < 2 || w.stride[0] > kMaxPhaseStride || w.stride[1] > kMaxPhaseStride) {
    return false;
  }
  const int64_t taps = w.kernel[0] * w.kernel[1];
  if (w.stride[1] == 2) return taps >= kManyReads * w.stride[0] * w.stride[1];
  return w.kernel[1] > w.stride[1] || (w.stride[1] == 4 && w.kernel[1] > 1);
}

namespace {

// The phases that some tap reads along one dimension, a bit each.
uint32_t UsedPhases(const Window& w, int d) {
  uint32_t used = 0;
  for (int64_t k = 0; k < w.kernel[d]; ++k) {
    const int64_t from_pad = k * w.dilation[d] - w.pad_begin[d];
    used |= 1u << ((from_pad % w.stride[d] + w.stride[d]) % w.stride[d]);
  }
  return used;
}

}  // namespace

Status AddPhases(PlanBuilder* b, int64_t channels, SpmmOperands* o) {
  PhasesArgs* args = nullptr;
  SRT_RETURN_IF_ERROR(b->NewArgs(&args));
  args->planes = o->batch * channels;
  args->channels = channels;
  args->in_h = o->window.in[0];
  args->in_w = o->window.in[1];
  args->layout = PlaneLayout(o->window, true);
  args->used_h = UsedPhases(o->window, 0);
  args->used_w = UsedPhases(o->window, 1);
  args->x_image = o->x_image;
  args->x_plane = o->x_row;
  args->y_plane = args->layout.floats();
  Kernel kernel;
  if (!SelectPhases(b->options.isa, &kernel)) {
    return b->Fail(StatusCode::kUnsupported, "no kernel for this instruction set");
  }
  IoRef phases;
  const int64_t floats = args->planes * args->y_plane;
  SRT_RETURN_IF_ERROR(b->Temporary(static_cast<size_t>(floats) * sizeof(float), &phases));
  const IoRef io[] = {o->x, phases};
  SRT_RETURN_IF_ERROR(
      b->AddStep(kernel, args, {io, 2}, PhasesItems(*args), 0, static_cast<double>(floats) * 0.2));
  o->phased = true;
  o->x = phases;
  o->x_row = args->y_plane;
  o->x_group = args->y_plane * (channels / o->key.groups);
  o->x_image = args->y_plane * channels;
  return Status::Ok();
}

}  // namespace sparsert
