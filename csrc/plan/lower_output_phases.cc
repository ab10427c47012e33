// A strided ConvTranspose as one convolution of stride 1 with rows (phase, output channel) into a
// temporary, whose phases are then dealt out to the output's elements.
#include "plan/lower_output_phases.h"

#include <algorithm>

#include "plan/lower_spmm.h"

namespace sparsert {
namespace {

constexpr int64_t kMaxPhases = 4096;

int64_t FloorDiv(int64_t a, int64_t b) { return a >= 0 ? a / b : -((b - 1 - a) / b); }

// Output element q * stride + r sums inputs q + delta times kernel[r + pad - stride * delta].
OutputPhases PhasesOf(const Window& w) {
  OutputPhases p;
  for (int d = 0; d < 2; ++d) {
    const int64_t stride = w.stride[d];
    int64_t low = 0;
    int64_t high = 0;
    for (int64_t r = 0; r < stride; ++r) {
      const int64_t last = FloorDiv(r + w.pad_begin[d], stride);
      const int64_t first = -FloorDiv(w.kernel[d] - 1 - r - w.pad_begin[d], stride);
      if (first > last) continue;  // no tap of the kernel meets this phase
      low = std::min(low, first);
      high = std::max(high, last);
    }
    p.kernel[d] = static_cast<int32_t>(w.kernel[d]);
    p.stride[d] = static_cast<int32_t>(stride);
    p.pad[d] = static_cast<int32_t>(w.pad_begin[d]);
    p.before[d] = static_cast<int32_t>(-low);
    p.taps[d] = static_cast<int32_t>(high - low + 1);
  }
  return p;
}

// The part of the output with `count` elements of every phase from `begin` on, of which the phases
// below `phases` are there.
struct Part {
  int64_t begin, count, phases;
};

// [0]: whole strides; [1]: the stride that the output's end cuts.
void PartsOf(int64_t out, int64_t stride, Part (&parts)[2]) {
  parts[0] = {0, out / stride, stride};
  parts[1] = {out / stride, out % stride == 0 ? 0 : 1, out % stride};
}

}  // namespace

bool HasOutputPhases(const Window& w, int64_t groups) {
  const int64_t phases = w.stride[0] * w.stride[1];
  return groups == 1 && phases > 1 && phases <= kMaxPhases && w.dilation[0] == 1 &&
         w.dilation[1] == 1;
}

Status LowerOutputPhases(PlanBuilder* b, const Window& window) {
  const Node& node = *b->node;
  const uint32_t x = node.Input(0);
  const uint32_t y = node.outputs[0];
  const TensorDesc& px = b->desc(x);
  const TensorDesc& py = b->desc(y);
  const int64_t channels_in = b->facts(x).shape.dims[1];
  const int64_t channels = b->facts(y).shape.dims[1];

  SpmmOperands o;
  o.key.tensor = node.Input(1);
  o.key.transposed = true;
  o.key.phases = PhasesOf(window);
  const OutputPhases& p = o.key.phases;
  o.key.taps = p.taps[0] * p.taps[1];
  o.window.spatial_rank = window.spatial_rank;
  bool pointwise = true;
  for (int d = 0; d < 2; ++d) {
    o.window.kernel[d] = p.taps[d];
    o.window.pad_begin[d] = p.before[d];
    o.window.in[d] = window.in[d];
    o.window.out[d] = (window.out[d] + window.stride[d] - 1) / window.stride[d];
    pointwise = pointwise && p.taps[d] == 1 && o.window.out[d] == window.in[d];
  }
  o.batch = b->facts(x).shape.dims[0];
  o.columns = o.window.out[0] * o.window.out[1];
  const int64_t plane = (o.columns + 15) / 16 * 16;
  const int64_t rows = channels * p.phases();
  o.may_be_direct = pointwise && px.strides[1] >= plane && b->ref(x).kind == IoRef::kArena;
  o.x_image = px.strides[0];
  o.x_row = px.strides[1];
  o.x_group = px.strides[1] * channels_in;
  o.y_image = plane * rows;
  o.y_row = plane;
  o.x = b->ref(x);
  SRT_RETURN_IF_ERROR(b->Temporary(static_cast<size_t>(o.batch * o.y_image) * sizeof(float), &o.y));
  if (node.Input(2) != kNoTensor) {
    const void* data = nullptr;
    SRT_RETURN_IF_ERROR(b->ConstantData(node.Input(2), &data));
    auto* repeated = b->plan->memory.Allocate<float>(static_cast<size_t>(rows));
    if (repeated == nullptr) return Status::OutOfMemory("bias", rows * sizeof(float));
    for (int64_t i = 0; i < rows; ++i) {
      repeated[i] = static_cast<const float*>(data)[i % channels];
    }
    o.bias_values = repeated;
  }
  o.act = FusedActivation(node);
  SRT_RETURN_IF_ERROR(LowerSpmm(b, o));

  // [image][channel][phase row][row][phase column][column], as the temporary and as the output have
  // it: all phase columns of an output row are written while it is in cache.
  const int64_t row = o.window.out[1];
  const int64_t from_strides[6] = {
      o.y_image, plane, plane * channels * window.stride[1], row, plane * channels, 1};
  const int64_t to_strides[6] = {
      py.strides[0],   py.strides[1], window.out[1], window.out[1] * window.stride[0], 1,
      window.stride[1]};
  Part down[2];
  Part along[2];
  PartsOf(window.out[0], window.stride[0], down);
  PartsOf(window.out[1], window.stride[1], along);
  for (const Part& h : down) {
    for (const Part& w : along) {
      if (h.count == 0 || w.count == 0) continue;
      const int64_t dims[6] = {o.batch, channels, h.phases, h.count, w.phases, w.count};
      TensorDesc from;
      from.shape.rank = 6;
      TensorDesc to = from;
      for (int d = 0; d < 6; ++d) {
        from.shape.dims[d] = to.shape.dims[d] = dims[d];
        from.strides[d] = from_strides[d];
        to.strides[d] = to_strides[d];
      }
      const int64_t from_first = h.begin * from_strides[3] + w.begin;
      const int64_t to_first = h.begin * to_strides[3] + w.begin * to_strides[5];
      SRT_RETURN_IF_ERROR(b->AddCopy(from, Shifted(o.y, from_first, DType::kF32), to,
                                     Shifted(b->ref(y), to_first, DType::kF32)));
    }
  }
  return Status::Ok();
}

}  // namespace sparsert
