// Lowers the ops on packed bytes.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>

#include "graph/infer_rules.h"
#include "kernels/qpool/qpool.h"
#include "kernels/qtaps/qtaps.h"
#include "kernels/quantize/quantize.h"
#include "plan/builder.h"
#include "plan/choose_layouts.h"
#include "plan/conv_operands.h"
#include "plan/lower_qdwconv.h"
#include "plan/lower_qspmv.h"

namespace sparsert {
namespace {

// Magnitudes that sums of products, and what is rounded, may have: they are 32-bit integers.
constexpr double kMaxSum = 2147483647.0;

int32_t Quant(const Node& node, size_t i) {
  return static_cast<int32_t>(node.IntsAttr(AttrKey::k_quant)[i]);
}

int64_t Columns(const TensorDesc& desc) { return desc.plane(); }

// Shapes and strides of the node's first input and of its output; the other than that of packed
// bytes counts the channels.
void PlaceOperands(PlanBuilder* b, bool from_bytes, QuantizeArgs* args) {
  const uint32_t x = b->node->Input(0);
  const uint32_t y = b->node->outputs[0];
  args->batch = b->facts(x).shape.dims[0];
  args->planes = b->facts(from_bytes ? x : y).shape.dims[1];
  args->channels = b->facts(from_bytes ? y : x).shape.dims[1];
  args->columns = Columns(b->desc(y));
  PlaceInOut(b->desc(x), b->desc(y), args);
}

// Fewer planes than threads are cut into stretches of whole vectors, each of which counts as an
// image.
void CutPlanes(int threads, QuantizeArgs* args) {
  constexpr int64_t kVector = 16;
  if (args->batch != 1 || args->planes >= threads) return;
  for (int64_t parts = 4 * threads; parts > 1; parts /= 2) {
    if (args->columns % (kVector * parts) != 0) continue;
    args->batch = parts;
    args->columns /= parts;
    args->x_image = args->b_image = args->y_image = args->columns;
    return;
  }
}

Status LowerSimple(PlanBuilder* b, QuantizeOp op, const char* reason, QuantizeArgs* args) {
  const Node& node = *b->node;
  const bool has_two = op == QuantizeOp::kAdd;
  const uint32_t x = node.Input(0);
  const uint32_t y = node.outputs[0];
  PlaceOperands(b, op == QuantizeOp::kDequantize, args);
  if (has_two) {
    const Planes pb = PlanesOf(b->desc(node.Input(1)));
    args->b_image = pb.image;
    args->b_plane = pb.plane;
  }
  if (b->options.threads > 1) CutPlanes(b->options.threads, args);
  Kernel kernel;
  if (!SelectQuantize(op, b->options.isa, &kernel)) {
    return b->Fail(StatusCode::kInternal, "no kernel for these operands");
  }
  snprintf(b->info().reason, sizeof(b->info().reason), "%s", reason);
  const IoRef one[] = {b->ref(x), b->ref(y)};
  const IoRef two[] = {b->ref(x), b->ref(node.Input(1)), b->ref(y)};
  const Span<IoRef> io = has_two ? Span<IoRef>{two, 3} : Span<IoRef>{one, 2};
  const double elements = static_cast<double>(QuantizeItems(*args) * args->columns) * 4.0;
  return b->AddStep(kernel, args, io, QuantizeItems(*args), 0, elements * 0.1);
}

// Rounding to bytes needs a scale that is not 0, and sums of meanings finite ones.
bool AreFinite(const float* values, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    if (!std::isfinite(values[i])) return false;
  }
  return true;
}

// Of a unit of the result: by how much a coarse activation may miss.
constexpr float kCoarseUnits = 1.0f / 64;

// All but the shape and strides of x.
Status FillElementwise(PlanBuilder* b, const Node& node, QuantizeArgs* args) {
  const uint32_t r = node.Input(3);
  const uint32_t y = node.outputs[0];
  const float* scale = nullptr;
  SRT_RETURN_IF_ERROR(b->ConstantFloats(node.Input(1), &scale));
  args->y_is_float = b->facts(y).dtype == DType::kF32;
  if (!AreFinite(scale, 3) || (!args->y_is_float && !(scale[2] > 0.0f))) {
    return b->Fail(StatusCode::kUnsupported, "the factors must be finite, the result's above 0");
  }
  args->scale = scale[0];
  args->b_scale = scale[1];
  args->y_factor = scale[2];
  args->x_zero = Quant(node, 0);
  args->b_zero = Quant(node, 1);
  if (!args->y_is_float) {
    args->zero = Quant(node, 2);
    args->low = Quant(node, 3);
    args->high = Quant(node, 4);
  }
  SRT_RETURN_IF_ERROR(b->ConstantFloats(node.Input(2), &args->bias));
  args->act = FusedActivation(node);
  const bool is_gelu = args->act.fn == UnaryFn::kGelu || args->act.fn == UnaryFn::kGeluTanh;
  args->is_coarse =
      is_gelu && !args->y_is_float && args->y_factor * kCoarseGeluError < kCoarseUnits;
  args->channels = node.IntAttr(AttrKey::k_channels, 0);
  const Planes py = PlanesOf(b->desc(y));
  args->y_image = py.image;
  args->y_plane = py.plane;
  if (r != kNoTensor) {
    const Planes pr = PlanesOf(b->desc(r));
    args->b_image = pr.image;
    args->b_plane = pr.plane;
    args->r_is_float = b->facts(r).dtype == DType::kF32;
  }
  return Status::Ok();
}

Status LowerQuantisedElementwise(PlanBuilder* b) {
  const Node& node = *b->node;
  const uint32_t x = node.Input(0);
  if (b->ref(x).kind == IoRef::kNone) {
    b->info().compute_format = "fused";
    snprintf(b->info().reason, sizeof(b->info().reason), "computed with its input");
    return Status::Ok();
  }
  QuantizeArgs* args = nullptr;
  SRT_RETURN_IF_ERROR(b->NewArgs(&args));
  SRT_RETURN_IF_ERROR(FillElementwise(b, node, args));
  args->batch = b->facts(x).shape.dims[0];
  args->planes = b->facts(x).shape.dims[1];
  args->columns = Columns(b->desc(x));
  const Planes px = PlanesOf(b->desc(x));
  args->x_image = px.image;
  args->x_plane = px.plane;
  Kernel kernel;
  if (!SelectQuantize(QuantizeOp::kElementwise, b->options.isa, &kernel)) {
    return b->Fail(StatusCode::kInternal, "no kernel for these operands");
  }
  snprintf(b->info().reason, sizeof(b->info().reason), "bytes, a bias, a residual: one pass");
  const IoRef io[] = {b->ref(x), b->ref(node.Input(3)), b->ref(node.outputs[0])};
  const double elements = static_cast<double>(QuantizeItems(*args) * args->columns) * 4.0;
  const double ns = args->act.fn == UnaryFn::kNone ? 0.1 : 0.6;
  return b->AddStep(kernel, args, {io, 3}, QuantizeItems(*args), 0, elements * ns);
}

Status LowerQuantizeDynamic(PlanBuilder* b) {
  const Node& node = *b->node;
  const uint32_t x = node.Input(0);
  const uint32_t y = node.outputs[0];
  QuantizeArgs* args = nullptr;
  SRT_RETURN_IF_ERROR(b->NewArgs(&args));
  PlaceOperands(b, false, args);
  // Few enough for every item to read them all.
  constexpr int64_t kMaxParts = 64;
  constexpr int64_t kPartFloats = 4096;
  const int64_t elements = args->batch * args->channels * args->columns;
  args->parts = std::max<int64_t>(1, std::min(kMaxParts, elements / kPartFloats));
  Kernel range;
  Kernel kernel;
  if (!SelectQuantize(QuantizeOp::kRange, b->options.isa, &range) ||
      !SelectQuantize(QuantizeOp::kDynamic, b->options.isa, &kernel)) {
    return b->Fail(StatusCode::kInternal, "no kernel for these operands");
  }
  snprintf(b->info().reason, sizeof(b->info().reason), "the range of floats, then their bytes");
  IoRef ranges;
  SRT_RETURN_IF_ERROR(b->Temporary(static_cast<size_t>(2 * args->parts) * sizeof(float), &ranges));
  const IoRef read[] = {b->ref(x), ranges};
  const auto work = static_cast<double>(elements);
  SRT_RETURN_IF_ERROR(b->AddStep(range, args, {read, 2}, args->parts, 0, work * 0.05));
  const IoRef io[] = {b->ref(x), ranges, b->ref(y), b->ref(node.outputs[1])};
  return b->AddStep(kernel, args, {io, 4}, QuantizeItems(*args), 0, work * 0.1);
}

Status LowerPackedPool(PlanBuilder* b) {
  const Node& node = *b->node;
  const uint32_t x = node.Input(0);
  const uint32_t y = node.outputs[0];
  const Shape& in = b->facts(x).shape;
  const bool max = node.op == Op::kQMaxPool;
  const Span<int64_t> kernel_shape = node.IntsAttr(AttrKey::k_kernel_shape);
  QpoolArgs* args = nullptr;
  SRT_RETURN_IF_ERROR(b->NewArgs(&args));
  args->batch = in.dims[0];
  args->planes = in.dims[1];
  args->columns = Columns(b->desc(y));
  PlaceInOut(b->desc(x), b->desc(y), args);

  Window w;
  if (kernel_shape.empty()) {  // global: one row of the whole plane
    w.in[1] = w.kernel[1] = Columns(b->desc(x));
  } else {
    SRT_RETURN_IF_ERROR(ResolveWindow(node, in, kernel_shape, &w));
  }
  for (int d = 0; d < 2; ++d) {
    args->kernel[d] = w.kernel[d];
    args->stride[d] = w.stride[d];
    args->dilation[d] = w.dilation[d];
    args->pad_begin[d] = w.pad_begin[d];
    args->in[d] = w.in[d];
    args->out[d] = w.out[d];
    args->ends[d] = w.in[d] + w.pad_begin[d] + w.pad_end[d];
  }
  Kernel kernel;
  if (max) {
    int lanes = 0;
    if (!SelectQmaxPool(b->options.isa, &kernel, &lanes)) {
      return b->Fail(StatusCode::kInternal, "no kernel for these operands");
    }
    args->by_rows = QmaxPoolHasRows(*args);
    if (!args->by_rows) {
      SRT_RETURN_IF_ERROR(
          b->Taps(w, false, false, MakeTiling(args->columns, lanes, 1, 1), &args->taps));
    }
  } else {
    kernel = QaveragePool();
    args->count_padding = node.IntAttr(AttrKey::k_count_include_pad, 0) != 0;
    args->scale = node.FloatAttr(AttrKey::k_alpha, 1.0f);
    args->x_zero = Quant(node, 0);
    args->zero = Quant(node, 1);
    args->low = Quant(node, 2);
    args->high = Quant(node, 3);
  }
  snprintf(b->info().reason, sizeof(b->info().reason), "pool of bytes, bound by memory");
  const IoRef io[] = {b->ref(x), b->ref(y)};
  const double work_ns = static_cast<double>(QpoolItems(*args) * args->columns) *
                         static_cast<double>(w.kernel[0] * w.kernel[1]);
  return b->AddStep(kernel, args, {io, 2}, QpoolItems(*args), 0, work_ns);
}

// What the rows of a layer start from and are scaled by, padded to whole groups.
struct Rows {
  float* scale;
  float* bias;  // f32 output only, may be nullptr
  int64_t* start;
  int64_t* weights;
};

// Checks that no sum can leave 32 bits.
Status FillRows(PlanBuilder* b, const QspmmArgs& q, const PackKey& key, int64_t padded_rows,
                Rows* rows) {
  const Node& node = *b->node;
  const int64_t count = b->graph.tensors[node.Input(1)].dims[0];
  const void* scale = nullptr;
  const void* start = nullptr;
  SRT_RETURN_IF_ERROR(b->ConstantData(node.Input(2), &scale));
  const uint32_t bias_input = node.Input(q.at_run ? 4 : 3);
  if (bias_input != kNoTensor) SRT_RETURN_IF_ERROR(b->ConstantData(bias_input, &start));
  const auto n = static_cast<size_t>(padded_rows);
  rows->scale = b->plan->memory.Allocate<float>(n);
  rows->start = b->plan->memory.Allocate<int64_t>(n);
  rows->weights = b->plan->memory.Allocate<int64_t>(n);
  rows->bias = q.f32_output && start != nullptr ? b->plan->memory.Allocate<float>(n) : nullptr;
  if (rows->scale == nullptr || rows->start == nullptr || rows->weights == nullptr ||
      (q.f32_output && start != nullptr && rows->bias == nullptr)) {
    return Status::OutOfMemory("rows of a layer", n * 24);
  }
  const Csr* csr = nullptr;
  SRT_RETURN_IF_ERROR(b->weights->AsCsr(key, &csr));
  for (int64_t r = 0; r < padded_rows; ++r) {
    rows->scale[r] = 0.0f;
    rows->start[r] = rows->weights[r] = 0;
    if (rows->bias != nullptr) rows->bias[r] = 0.0f;
    if (r >= count) continue;
    double largest = 0.0;
    for (uint32_t i = csr->row_ptr[r]; i < csr->row_ptr[r + 1]; ++i) {
      int8_t bytes[4];
      memcpy(bytes, &csr->values[i], sizeof(bytes));
      for (const int value : bytes) {
        rows->weights[r] += value;
        largest += 255.0 * (value < 0 ? -value : value);
      }
    }
    rows->scale[r] = static_cast<const float*>(scale)[r];
    rows->start[r] = -rows->weights[r] * q.fill;
    if (start != nullptr && q.f32_output) {
      rows->bias[r] = static_cast<const float*>(start)[r];
    } else if (start != nullptr) {
      const int32_t bias = static_cast<const int32_t*>(start)[r];
      rows->start[r] += bias;
      largest += bias < 0 ? -static_cast<double>(bias) : static_cast<double>(bias);
    }
    const double scaled = largest * (rows->scale[r] < 0 ? -rows->scale[r] : rows->scale[r]);
    // Twice: with the offset that a kernel subtracts from its bytes.
    if (2.0 * largest >= kMaxSum || (!q.at_run && !(scaled < kMaxSum))) {
      return b->Fail(StatusCode::kUnsupported, "sums may exceed 32 bits");
    }
  }
  return Status::Ok();
}

// Whether groups of four taps of a row are fewer than groups of four channels.
bool GainsByQtaps(const Window& w, int64_t channels) {
  const int64_t groups = (w.kernel[1] + 3) / 4;
  const int64_t stride = w.stride[1];
  return channels * groups < w.kernel[1] && w.dilation[1] == 1 &&
         (stride == 1 || stride == 2 || stride == 4);
}

// Appends the step that groups them, padding included, and lets `o` read the groups.
Status AddQtaps(PlanBuilder* b, int64_t channels, uint8_t zero, SpmmOperands* o) {
  Window& w = o->window;
  QtapsArgs* args = nullptr;
  SRT_RETURN_IF_ERROR(b->NewArgs(&args));
  const int64_t groups = (w.kernel[1] + 3) / 4;
  const int64_t apart = 4 / w.stride[1];  // columns between the groups of a window
  args->batch = o->batch;
  args->channels = channels;
  args->in_h = w.in[0];
  args->in_w = w.in[1];
  args->rows = (w.out[0] - 1) * w.stride[0] + (w.kernel[0] - 1) * w.dilation[0] + 1;
  args->columns = w.out[1] + (groups - 1) * apart;
  args->stride = w.stride[1];
  args->pad_h = w.pad_begin[0];
  args->pad_w = w.pad_begin[1];
  args->zero = zero;
  args->x_image = o->x_image;
  args->y_plane = PlaneStride(args->rows * args->columns);
  args->y_image = args->y_plane * channels;
  Kernel kernel;
  if (!SelectQtaps(b->options.isa, &kernel)) {
    return b->Fail(StatusCode::kInternal, "no kernel for these operands");
  }
  IoRef taps;
  const int64_t all = args->batch * args->y_image;
  SRT_RETURN_IF_ERROR(b->Temporary(static_cast<size_t>(all) * sizeof(uint32_t), &taps));
  const IoRef io[] = {o->x, taps};
  SRT_RETURN_IF_ERROR(b->AddStep(kernel, args, {io, 2}, QtapsItems(*args),
                                 static_cast<size_t>(QtapsLength(*args)),
                                 static_cast<double>(all) * 0.3));
  o->x = taps;
  o->x_row = args->y_plane;
  o->x_group = o->x_image = args->y_image;
  w.kernel[1] = groups;
  w.stride[1] = 1;
  w.dilation[1] = apart;
  w.in[0] = args->rows;
  w.in[1] = args->columns;
  for (int d = 0; d < 2; ++d) w.pad_begin[d] = w.pad_end[d] = 0;
  return Status::Ok();
}

Status LowerQuantisedConv(PlanBuilder* b) {
  const Node& node = *b->node;
  const Node* then = b->then == PlanBuilder::kNoNode ? nullptr : &b->graph.nodes[b->then];
  const uint32_t x = node.Input(0);
  const uint32_t y = then != nullptr ? then->outputs[0] : node.outputs[0];
  const bool at_run = node.op == Op::kQConvDynamic;
  const uint32_t r = then != nullptr         ? then->Input(3)
                     : at_run                ? node.Input(5)
                     : node.op == Op::kQConv ? node.Input(4)
                                             : kNoTensor;
  const Shape& in = b->facts(x).shape;
  const Tensor& weights = b->graph.tensors[node.Input(1)];
  const bool depthwise = IsQuantisedDepthwise(node, weights.dims, weights.rank);

  QspmmArgs q;
  q.at_run = at_run;
  q.f32_output = at_run || static_cast<DType>(node.IntAttr(AttrKey::k_to, 0)) == DType::kF32;
  if (!at_run) q.fill = static_cast<uint8_t>(Quant(node, 0));
  if (!q.f32_output) {
    q.zero = Quant(node, 1);
    q.low = Quant(node, 2);
    q.high = Quant(node, 3);
    if (then != nullptr) {
      QuantizeArgs* end = nullptr;
      SRT_RETURN_IF_ERROR(b->NewArgs(&end));
      SRT_RETURN_IF_ERROR(FillElementwise(b, *then, end));
      q.then = end;
    } else if (r != kNoTensor) {
      q.r_zero = Quant(node, 4);
      q.out_zero = Quant(node, 5);
      q.out_low = Quant(node, 6);
      q.out_high = Quant(node, 7);
      q.sum_scale = node.FloatAttr(AttrKey::k_alpha, 0.0f);
      q.r_scale = node.FloatAttr(AttrKey::k_beta, 0.0f);
    }
  }

  SpmmOperands o;
  SRT_RETURN_IF_ERROR(ResolveWindow(
      node, in, {weights.dims + 1, static_cast<size_t>(weights.rank - 2)}, &o.window));
  const int64_t row_count = weights.dims[0];
  const int64_t groups = depthwise ? PackedPlanes(row_count) : node.IntAttr(AttrKey::k_group, 1);
  const int64_t rows = depthwise ? 4 : row_count / groups;  // of a group
  Rows values;
  o.key.tensor = node.Input(1);
  o.key.groups = static_cast<int32_t>(groups);
  o.key.taps = static_cast<int32_t>(o.window.kernel[0] * o.window.kernel[1]);
  o.key.bytes = true;
  o.key.depthwise = depthwise;
  const int64_t channels = weights.dims[weights.rank - 1];  // of a group
  const bool by_row_taps =
      !at_run && !depthwise && groups == 1 && channels <= 4 && GainsByQtaps(o.window, channels);
  if (by_row_taps) {
    o.key.row_taps = static_cast<int32_t>(o.window.kernel[1]);
    o.key.taps = static_cast<int32_t>(o.window.kernel[0] * ((o.window.kernel[1] + 3) / 4));
  }
  SRT_RETURN_IF_ERROR(FillRows(b, q, o.key, rows * groups, &values));
  q.scale = values.scale;
  q.at_run = false;  // until the step is added
  if (at_run) o.params = b->ref(node.Input(3));
  o.batch = in.dims[0];
  o.columns = o.window.out[0] * o.window.out[1];
  const Planes px = PlanesOf(b->desc(x));
  const Planes py = PlanesOf(b->desc(y));
  o.may_be_direct = IsPointwise(o.window) && px.plane >= (o.columns + 15) / 16 * 16 &&
                    b->ref(x).kind == IoRef::kArena;
  o.x_image = px.image;
  o.x_row = px.plane;
  o.x_group = px.plane * (in.dims[1] / groups);
  const int64_t group_planes = q.f32_output ? rows : PackedPlanes(rows);
  o.y_image = py.image;
  o.y_row = py.plane;
  o.y_group = py.plane * group_planes;
  if (r != kNoTensor) {
    const Planes pr = PlanesOf(b->desc(r));
    o.r_image = pr.image;
    o.r_row = pr.plane;
    o.r_group = pr.plane * group_planes;
  }
  o.x = b->ref(x);
  o.r = b->ref(r);
  o.y = b->ref(y);
  o.bias_values = values.bias;
  if (q.f32_output) o.act = FusedActivation(node);
  o.quantised = &q;
  o.row_start = values.start;
  o.row_weights = values.weights;
  if (depthwise && !q.f32_output && IsQdwconv(o.window)) return LowerQdwconv(b, o);
  // Channels of vectors must lie side by side.
  const bool is_vector = IsPointwise(o.window) && o.columns == 1 && groups == 1 && o.x_row == 1 &&
                         o.y_row == 1 && o.r_row <= 1;
  if (is_vector) return LowerQspmv(b, o, in.dims[1], group_planes);
  if (by_row_taps) {
    SRT_RETURN_IF_ERROR(AddQtaps(b, channels, q.fill, &o));
    q.fill = 0;  // no tap lies outside
  } else if (GainsByPhases(o.window)) {
    SRT_RETURN_IF_ERROR(AddPhases(b, in.dims[1], &o));
  }
  return LowerSpmm(b, o);
}

}  // namespace

void PlanBuilder::ChooseThen() {
  then = kNoNode;
  const Node& n = *node;
  if (n.op != Op::kQConv || n.Input(4) != kNoTensor || n.IntAttr(AttrKey::k_group, 1) != 1 ||
      static_cast<DType>(n.IntAttr(AttrKey::k_to, 0)) == DType::kF32) {
    return;
  }
  const uint32_t y = n.outputs[0];
  const Tensor& w = graph.tensors[n.Input(1)];
  const Shape& shape = facts(y).shape;
  int64_t columns = 1;
  for (int d = 2; d < shape.rank; ++d) columns *= shape.dims[d];
  uint32_t reader = 0;
  // Vectors have kernels of their own.
  if (columns == 1 || IsQuantisedDepthwise(n, w.dims, w.rank) || !HasOneReader(y, &reader)) return;
  const Node& next = graph.nodes[reader];
  const uint32_t r = next.Input(3);
  if (next.op != Op::kQElementwise || next.Input(0) != y || Quant(next, 0) != Quant(n, 1) ||
      concat_parts_[next.outputs[0]].whole != kNoTensor ||
      (r != kNoTensor && (r == y || !plan->places[r].placed))) {
    return;
  }
  then = reader;
}

Status LowerQuantised(PlanBuilder* b) {
  const Node& node = *b->node;
  if (node.op == Op::kQConv || node.op == Op::kQDepthwise || node.op == Op::kQConvDynamic) {
    return LowerQuantisedConv(b);
  }
  if (node.op == Op::kQMaxPool || node.op == Op::kQAveragePool) return LowerPackedPool(b);
  if (node.op == Op::kQElementwise) return LowerQuantisedElementwise(b);
  if (node.op == Op::kQuantizeDynamic) return LowerQuantizeDynamic(b);
  QuantizeArgs* args = nullptr;
  SRT_RETURN_IF_ERROR(b->NewArgs(&args));
  args->scale = node.FloatAttr(AttrKey::k_alpha, 1.0f);
  args->b_scale = node.FloatAttr(AttrKey::k_beta, 1.0f);
  switch (node.op) {
    case Op::kQuantizePacked:
      args->zero = Quant(node, 0);
      args->low = Quant(node, 1);
      args->high = Quant(node, 2);
      return LowerSimple(b, QuantizeOp::kQuantize, "floats to bytes", args);
    case Op::kDequantizePacked:
      args->x_zero = Quant(node, 0);
      return LowerSimple(b, QuantizeOp::kDequantize, "bytes to floats", args);
    case Op::kQAdd:
      args->x_zero = Quant(node, 0);
      args->b_zero = Quant(node, 1);
      args->zero = Quant(node, 2);
      args->low = Quant(node, 3);
      args->high = Quant(node, 4);
      return LowerSimple(b, QuantizeOp::kAdd, "sum of bytes", args);
    default: {
      const void* table = nullptr;
      SRT_RETURN_IF_ERROR(b->ConstantData(node.Input(1), &table));
      args->table = static_cast<const uint8_t*>(table);
      return LowerSimple(b, QuantizeOp::kLookup, "a table of 256 bytes", args);
    }
  }
}

}  // namespace sparsert
