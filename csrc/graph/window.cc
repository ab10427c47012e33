// Kernel windows of convolutions and pools: auto_pad, dilation, ceil_mode, output_shape.
#include <cinttypes>

#include "graph/node_view.h"

namespace sparsert {
namespace {

int64_t FloorDiv(int64_t a, int64_t b) {  // b > 0
  return a >= 0 ? a / b : -((-a + b - 1) / b);
}
int64_t CeilDiv(int64_t a, int64_t b) {  // b > 0
  return -FloorDiv(-a, b);
}
int64_t Max(int64_t a, int64_t b) { return a > b ? a : b; }

// Reads an attribute of `n` values in [low, kMaxWindowValue] into `out`, which keeps its defaults
// when the attribute is absent.
Status ReadInts(const Node& node, AttrKey key, const char* name, size_t n, int64_t low,
                int64_t* out) {
  const Span<int64_t> values = node.IntsAttr(key);
  if (values.empty()) return Status::Ok();
  if (values.size != n) {
    return NodeError(node, StatusCode::kShape, "%s %s must have %zu values", name,
                     ShapeText(values.data, values.size).text, n);
  }
  for (size_t i = 0; i < n; ++i) {
    if (values[i] < low || values[i] > kMaxWindowValue) {
      return NodeError(node, StatusCode::kShape, "%s %s must be between %" PRId64 " and %" PRId64,
                       name, ShapeText(values.data, n).text, low, kMaxWindowValue);
    }
    out[i] = values[i];
  }
  return Status::Ok();
}

// Everything but pads and out. `pads` receives the attribute (begins, then ends; zeros if absent).
Status ReadWindow(const Node& node, const Shape& x, Span<int64_t> kernel_shape, Window* window,
                  int64_t pads[4], AutoPad* auto_pad) {
  *window = Window();
  const int n = x.rank - 2;
  if (n < 1 || n > 2) {
    return NodeError(node, n > 2 ? StatusCode::kUnsupported : StatusCode::kShape,
                     "input %s must have rank 3 or 4", ShapeText(x).text);
  }
  if (kernel_shape.size != static_cast<size_t>(n)) {
    return NodeError(node, StatusCode::kShape,
                     "kernel_shape %s must have %d values for an input %s",
                     ShapeText(kernel_shape.data, kernel_shape.size).text, n, ShapeText(x).text);
  }
  const size_t size = static_cast<size_t>(n);
  const int first = 2 - n;
  window->spatial_rank = n;
  for (int i = 0; i < n; ++i) {
    const int64_t k = kernel_shape[static_cast<size_t>(i)];
    if (k < 1 || k > kMaxWindowValue) {
      return NodeError(node, StatusCode::kShape, "kernel_shape %s must be between 1 and %" PRId64,
                       ShapeText(kernel_shape.data, size).text, kMaxWindowValue);
    }
    window->kernel[first + i] = k;
    const int64_t in = x.dims[2 + i];
    if (in < 1 || in > kMaxElements) {
      return NodeError(node, StatusCode::kShape, "input %s has an empty spatial dimension",
                       ShapeText(x).text);
    }
    window->in[first + i] = in;
  }
  SRT_RETURN_IF_ERROR(
      ReadInts(node, AttrKey::k_strides, "strides", size, 1, window->stride + first));
  SRT_RETURN_IF_ERROR(
      ReadInts(node, AttrKey::k_dilations, "dilations", size, 1, window->dilation + first));
  SRT_RETURN_IF_ERROR(ReadInts(node, AttrKey::k_pads, "pads", 2 * size, 0, pads));
  const int64_t mode = node.IntAttr(AttrKey::k_auto_pad, 0);
  if (mode < 0 || mode >= static_cast<int64_t>(AutoPad::kCount)) {
    return NodeError(node, StatusCode::kModelFormat, "auto_pad has the unknown value %" PRId64,
                     mode);
  }
  *auto_pad = static_cast<AutoPad>(mode);
  return Status::Ok();
}

// Size of the dilated kernel; at most 2^60.
int64_t Extent(const Window& w, int d) { return (w.kernel[d] - 1) * w.dilation[d] + 1; }

}  // namespace

Status ResolveWindow(const Node& node, const Shape& x, Span<int64_t> kernel_shape, Window* window) {
  int64_t pads[4] = {};
  AutoPad auto_pad = AutoPad::kNotSet;
  SRT_RETURN_IF_ERROR(ReadWindow(node, x, kernel_shape, window, pads, &auto_pad));
  const bool is_pool = node.op == Op::kMaxPool || node.op == Op::kAveragePool ||
                       node.op == Op::kQMaxPool || node.op == Op::kQAveragePool;
  const bool ceil_mode = is_pool && node.IntAttr(AttrKey::k_ceil_mode, 0) != 0;
  const int n = window->spatial_rank;
  for (int i = 0; i < n; ++i) {
    const int d = 2 - n + i;
    const int64_t in = window->in[d];
    const int64_t stride = window->stride[d];
    const int64_t extent = Extent(*window, d);
    if (auto_pad != AutoPad::kNotSet) {
      // A kernel smaller than the stride needs no padding; it never crops the input.
      window->out[d] = CeilDiv(in, stride);
      const int64_t total = Max(0, (window->out[d] - 1) * stride + extent - in);
      window->pad_begin[d] = auto_pad == AutoPad::kSameUpper ? total / 2 : total - total / 2;
      window->pad_end[d] = total - window->pad_begin[d];
      continue;
    }
    const int64_t begin = window->pad_begin[d] = pads[i];
    const int64_t end = window->pad_end[d] = pads[n + i];
    if (is_pool && (begin >= window->kernel[d] || end >= window->kernel[d])) {
      return NodeError(node, StatusCode::kShape, "pads %s must be smaller than the kernel %s",
                       ShapeText(pads, 2 * static_cast<size_t>(n)).text,
                       ShapeText(kernel_shape.data, kernel_shape.size).text);
    }
    const int64_t span = in + begin + end - extent;
    // A pool one partial window too large for its input still has one output, as in ONNX Runtime.
    const bool round_up = ceil_mode || (is_pool && span < 0);
    int64_t out = (round_up ? CeilDiv(span, stride) : FloorDiv(span, stride)) + 1;
    if (ceil_mode && (out - 1) * stride >= in + begin) --out;
    if (out < 1) {
      return NodeError(node, StatusCode::kShape,
                       "the kernel covers %" PRId64
                       " elements of dimension %d, but input %s with "
                       "its padding has only %" PRId64,
                       extent, 2 + i, ShapeText(x).text, in + begin + end);
    }
    window->out[d] = out;
  }
  return Status::Ok();
}

Status ResolveTransposedWindow(const Node& node, const Shape& x, Span<int64_t> kernel_shape,
                               Window* window) {
  int64_t pads[4] = {};
  AutoPad auto_pad = AutoPad::kNotSet;
  SRT_RETURN_IF_ERROR(ReadWindow(node, x, kernel_shape, window, pads, &auto_pad));
  const int n = window->spatial_rank;
  const size_t size = static_cast<size_t>(n);
  int64_t extra[2] = {};
  int64_t wanted[2] = {};
  SRT_RETURN_IF_ERROR(ReadInts(node, AttrKey::k_output_padding, "output_padding", size, 0, extra));
  SRT_RETURN_IF_ERROR(ReadInts(node, AttrKey::k_output_shape, "output_shape", size, 1, wanted));
  for (int i = 0; i < n; ++i) {
    const int d = 2 - n + i;
    const int64_t in = window->in[d];
    const int64_t stride = window->stride[d];
    if (extra[i] >= Max(stride, window->dilation[d])) {
      return NodeError(node, StatusCode::kShape,
                       "output_padding %s must be smaller than the stride or the dilation",
                       ShapeText(extra, size).text);
    }
    if (in - 1 > (kMaxElements * 4) / stride) {
      return NodeError(node, StatusCode::kShape, "the output of input %s is too large",
                       ShapeText(x).text);
    }
    const int64_t full = (in - 1) * stride + Extent(*window, d) + extra[i];
    int64_t begin = pads[i];
    int64_t end = pads[n + i];
    int64_t out = full - begin - end;
    if (wanted[i] != 0 || auto_pad != AutoPad::kNotSet) {
      // An output_shape may ask for more, as output_padding does, up to the next stride.
      if (wanted[i] - (full - extra[i]) >= stride) {
        return NodeError(node, StatusCode::kShape,
                         "output_shape %s is larger than the %" PRId64
                         " elements that input %s gives in dimension %d",
                         ShapeText(wanted, size).text, full, ShapeText(x).text, 2 + i);
      }
      const int64_t total = Max(0, full - (wanted[i] != 0 ? wanted[i] : in * stride));
      begin = auto_pad == AutoPad::kSameUpper ? total / 2 : total - total / 2;
      end = total - begin;
      out = wanted[i] != 0 ? wanted[i] : full - total;
    }
    window->pad_begin[d] = begin;
    window->pad_end[d] = end;
    window->out[d] = out;
    if (window->out[d] < 1) {
      return NodeError(node, StatusCode::kShape,
                       "pads remove all %" PRId64 " elements of dimension %d", full, 2 + i);
    }
  }
  return Status::Ok();
}

}  // namespace sparsert
