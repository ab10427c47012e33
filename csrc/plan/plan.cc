// PlanBuilder: lowers nodes in order.
#include "plan/plan.h"

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <utility>

#include "graph/node_view.h"
#include "kernels/copy/copy.h"
#include "kernels/wstem/wstem.h"
#include "plan/builder.h"
#include "plan/choose_spmm.h"

namespace sparsert {
namespace {

// Below this much work a step is not worth waking or synchronising threads for.
constexpr double kParallelNs = 8000.0;
// Work that is worth taking on its own.
constexpr double kChunkNs = 2000.0;

bool SameWindow(const Window& a, const Window& b) {
  for (int d = 0; d < 2; ++d) {
    if (a.kernel[d] != b.kernel[d] || a.stride[d] != b.stride[d] ||
        a.dilation[d] != b.dilation[d] || a.pad_begin[d] != b.pad_begin[d] || a.in[d] != b.in[d] ||
        a.out[d] != b.out[d]) {
      return false;
    }
  }
  return true;
}

}  // namespace

Activation FusedActivation(const Node& node) {
  Activation act;
  act.fn = static_cast<UnaryFn>(node.IntAttr(AttrKey::k_act, 0));
  act.alpha = node.FloatAttr(AttrKey::k_act_alpha, 0.0f);
  act.beta = node.FloatAttr(AttrKey::k_act_beta, 0.0f);
  return act;
}

Status PlanBuilder::Fail(StatusCode code, const char* what) const {
  return Status::Error(code, "node '%.*s' (%s): %s", SRT_STR(node->name), OpName(node->op), what);
}

Status PlanBuilder::ConstantData(uint32_t tensor, const void** data) {
  if (is_constant(tensor)) return weights->Dense(tensor, data);
  const TensorFacts& f = facts(tensor);
  if (!f.is_known) {
    return Fail(StatusCode::kUnsupported, "an input must be constant and is not");
  }
  const Span<int64_t> known = plan->facts.Known(tensor);
  const size_t size = DTypeSize(f.dtype);
  char* memory = plan->memory.Allocate<char>(known.size * size + 1);
  if (memory == nullptr) return Status::OutOfMemory("constant", known.size * size);
  for (size_t i = 0; i < known.size; ++i) {
    // Little-endian: the low bytes of the value come first.
    memcpy(memory + i * size, &known.data[i], size);
  }
  *data = memory;
  return Status::Ok();
}

Status PlanBuilder::AddStep(const Kernel& kernel, const void* args, Span<IoRef> io, int64_t items,
                            size_t scratch_bytes, double work_ns) {
  Step step;
  step.kernel = kernel;
  step.args = args;
  step.node = node_index;
  step.io_count = static_cast<int32_t>(io.size);
  for (size_t i = 0; i < io.size; ++i) {
    step.io[i] = io[i];
    if (io[i].kind == IoRef::kArena) buffers_[io[i].index].last = node_index;
    step.may_fault |= io[i].kind == IoRef::kFault;
  }
  step.items = items;
  step.chunk = items < 1 ? 1 : items;
  if (options.threads > 1 && work_ns >= kParallelNs) {
    const double small = kChunkNs / work_ns * static_cast<double>(items);
    const int64_t share = (items + options.threads - 1) / options.threads;
    const int64_t largest = std::max<int64_t>(1, std::min(share, static_cast<int64_t>(small)));
    const int64_t chunks = (share + largest - 1) / largest;  // as many for each thread
    step.chunk = (share + chunks - 1) / chunks;
  }
  step.scratch_bytes = (scratch_bytes + kCacheLine - 1) / kCacheLine * kCacheLine;
  stage_.scratch_bytes = std::max(stage_.scratch_bytes, step.scratch_bytes);
  NodePlan& node_plan = info();
  // The last step with a name of its own is the one that computes; copies only move.
  node_plan.kernel = kernel.name;
  node_plan.isa = kernel.isa;
  ++node_plan.step_count;
  return plan->steps.push_back(step);
}

Status PlanBuilder::AddCopy(const TensorDesc& from_desc, IoRef from, const TensorDesc& to_desc,
                            IoRef to) {
  CopyArgs* args = nullptr;
  SRT_RETURN_IF_ERROR(NewArgs(&args));
  *args = MakeCopyArgs(from_desc.dtype, from_desc.shape, from_desc.strides, to_desc.strides);
  Kernel kernel;
  if (!SelectCopy(*args, options.isa, &kernel)) {
    return Fail(StatusCode::kInternal, "no copy kernel");
  }
  const NodePlan before = info();
  const IoRef io[] = {from, to};
  const double bytes = static_cast<double>(from_desc.shape.elements()) * DTypeSize(from_desc.dtype);
  SRT_RETURN_IF_ERROR(AddStep(kernel, args, {io, 2}, CopyItems(*args), 0, bytes * 0.1));
  if (before.step_count > 0) {
    info().kernel = before.kernel;
    info().isa = before.isa;
  }
  return Status::Ok();
}

Status PlanBuilder::Taps(const Window& window, bool transposed, bool phased, const Tiling& tiling,
                         TapTable* table) {
  for (const TapsEntry& entry : taps_) {
    if (entry.transposed == transposed && entry.phased == phased &&
        SameWindow(entry.window, window) && entry.tiling.lanes == tiling.lanes &&
        entry.tiling.tiles == tiling.tiles && entry.tiling.vecs == tiling.vecs) {
      *table = entry.table;
      return Status::Ok();
    }
  }
  TapsEntry entry;
  memset(static_cast<void*>(&entry), 0, sizeof(entry));
  entry.window = window;
  entry.transposed = transposed;
  entry.phased = phased;
  entry.tiling = tiling;
  SRT_RETURN_IF_ERROR(BuildTaps(window, transposed, PlaneLayout(window, phased), tiling,
                                &plan->memory, &entry.table));
  *table = entry.table;
  return taps_.push_back(entry);
}

uint32_t PlanBuilder::WeightsOf(const Node& n) const {
  if (IsWeight(n.op, 1)) return n.Input(1);
  return IsLookup(graph, n) ? n.Input(0) : kNoTensor;
}

void PlanBuilder::Describe(const Node& n) {
  NodePlan& p = info();
  const uint32_t t = WeightsOf(n);
  if (t == kNoTensor) return;
  const Tensor& w = graph.tensors[t];
  static const char* const kStorage[] = {"dense", "bitmask", "csr"};
  p.weights = static_cast<uint64_t>(w.data.rows) * w.data.cols;
  p.storage_bytes = w.data.stored_bytes;
  p.storage_format = kStorage[static_cast<int>(w.data.encoding)];
  if (w.data.encoding == Encoding::kBlock && w.data.block_rows * w.data.block_cols > 1) {
    p.storage_format = "block";
  }
}

Status PlanBuilder::LowerNode() {
  const Node& n = *node;
  bool folded = true;
  for (uint32_t t : n.outputs) folded &= t == kNoTensor || facts(t).is_known;
  if (folded) {
    info().compute_format = "folded";
    snprintf(info().reason, sizeof(info().reason), "shape arithmetic, computed at plan time");
    return Status::Ok();
  }
  for (uint32_t t : n.inputs) {
    // Weights of matrix ops are packed by their lowering, and some tables are looked up as they lie
    // in the file; everything else is read decoded.
    const bool packed = t == WeightsOf(n) || (t == n.Input(3) && n.op == Op::kRecurrent);
    if (t != kNoTensor && !packed) SRT_RETURN_IF_ERROR(PlaceConstant(t));
  }
  SRT_RETURN_IF_ERROR(ChoosePlanesConv());
  ChooseThen();
  SRT_RETURN_IF_ERROR(ChooseOutputTiling());
  const bool is_projection = IsProjection();
  const uint32_t absorbed = planes_conv.pool != PlanesConv::kNoPool ? planes_conv.pool : then;
  if (is_projection) {
    plan->places[n.outputs[0]].placed = true;  // it has no memory
  } else if (absorbed == kNoNode) {
    SRT_RETURN_IF_ERROR(PlaceOutputsOf(n));
  } else {
    // The step writes what that node makes of this one's output, which itself has no memory.
    SRT_RETURN_IF_ERROR(PlaceOutputsOf(graph.nodes[absorbed]));
    plan->places[n.outputs[0]].placed = true;
  }
  Describe(n);
  bool is_empty = !IsReshape(n.op);  // those share memory, and need a place
  for (uint32_t t : n.outputs) {
    is_empty = is_empty && (t == kNoTensor || facts(t).shape.elements() == 0);
  }
  if (is_empty) {
    snprintf(info().reason, sizeof(info().reason), "its output is empty");
    return Status::Ok();
  }
  if (info().weights != 0) {
    SRT_RETURN_IF_ERROR(weights->NonZeros(WeightsOf(n), &info().nonzeros));
  }
  switch (n.op) {
    case Op::kConv:
    case Op::kConvTranspose:
      if (kHasWstem && planes_conv.kind == PlanesConv::Kind::kWstem) return LowerWstem(this);
      switch (planes_conv.kind) {
        case PlanesConv::Kind::kRowconv:
          return LowerRowconv(this);
        case PlanesConv::Kind::kStem:
          return LowerStem(this);
        default:
          return LowerConv(this);
      }
    case Op::kLinear:
      return is_projection ? LowerProjection(this) : LowerLinear(this);
    case Op::kUnary:
    case Op::kBinary:
    case Op::kPRelu:
    case Op::kBatchNormalization:
    case Op::kCast:
    case Op::kWhere:
    case Op::kCompare:
      return LowerElementwise(this);
    case Op::kMatMul:
      return LowerMatMul(this);
    case Op::kAttention:
      return LowerAttention(this);
    case Op::kRecurrent:
      return LowerRecurrent(this);
    case Op::kQuantizePacked:
    case Op::kDequantizePacked:
    case Op::kQConv:
    case Op::kQDepthwise:
    case Op::kQAdd:
    case Op::kQMaxPool:
    case Op::kQAveragePool:
    case Op::kQLookup:
    case Op::kQElementwise:
    case Op::kQuantizeDynamic:
    case Op::kQConvDynamic:
      return LowerQuantised(this);
    case Op::kQAttention:
      return LowerQattention(this);
    case Op::kLayerNormalization:
    case Op::kRMSNormalization:
      return LowerNorm(this);
    case Op::kMaxPool:
    case Op::kAveragePool:
    case Op::kGlobalAveragePool:
    case Op::kGlobalMaxPool:
      return LowerPool(this);
    case Op::kReduce:
    case Op::kSoftmax:
    case Op::kLogSoftmax:
      return LowerReduce(this);
    case Op::kResize:
      return LowerResize(this);
    case Op::kReshape:
    case Op::kFlatten:
    case Op::kSqueeze:
    case Op::kUnsqueeze:
    case Op::kBitCast:
      return View(n.outputs[0], n.Input(0));
    case Op::kArgMax:
    case Op::kArgMin:
    case Op::kTopK:
    case Op::kGatherElements:
    case Op::kGatherND:
    case Op::kScatterElements:
    case Op::kScatterND:
    case Op::kOneHot:
    case Op::kCumSum:
    case Op::kCumProd:
    case Op::kTrilu:
      return LowerIndex(this);
    case Op::kGridSample:
    case Op::kRoiAlign:
    case Op::kDeformColumns:
      return LowerSample(this);
    default:
      return LowerMovement(this);
  }
}

void PlanBuilder::AddToReason(uint32_t node_index, const char* format, ...) {
  NodePlan& p = plan->nodes[node_index];
  const size_t said = strlen(p.reason);
  va_list args;
  va_start(args, format);
  vsnprintf(p.reason + said, sizeof(p.reason) - said, format, args);
  va_end(args);
}

void PlanBuilder::ExplainFormat() {
  if (options.format == kAnyFormat) return;
  const char* name = FormatName(options.format);
  for (uint32_t i = 0; i < graph.nodes.size(); ++i) {
    const NodePlan& p = plan->nodes[i];
    if (!IsWeight(graph.nodes[i].op, 1) || p.kernel[0] == '\0') continue;
    if (strcmp(p.compute_format, name) == 0) continue;
    AddToReason(i, "; SPARSERT_FORMAT=%s is no format of this layer here", name);
  }
}

Status PlanBuilder::WriteGraphOutputs() {
  for (size_t i = 0; i < graph.outputs.size; ++i) {
    const uint32_t t = graph.outputs[i];
    TensorPlace& place = plan->places[t];
    if (!place.placed) {
      node_index = static_cast<uint32_t>(plan->nodes.size()) - 1;
      SRT_RETURN_IF_ERROR(PlaceConstant(t));
    }
    if (place.ref.kind == IoRef::kOutput && place.ref.index == i) continue;
    IoRef to;
    to.kind = IoRef::kOutput;
    to.index = static_cast<uint32_t>(i);
    SRT_RETURN_IF_ERROR(
        AddCopy(place.desc, place.ref, PlainDesc(place.desc.dtype, place.desc.shape), to));
  }
  return Status::Ok();
}

Status PlanBuilder::EstimateWork() {
  SRT_RETURN_IF_ERROR(work_.resize(graph.nodes.size()));
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    const Node& n = graph.nodes[i];
    if (!IsWeight(n.op, 1)) continue;
    const bool is_rows = n.op == Op::kLinear || n.op == Op::kRecurrent;
    const Tensor& w = graph.tensors[n.Input(1)];
    const Shape& out = facts(n.outputs[0]).shape;
    uint64_t nnz = 0;
    SRT_RETURN_IF_ERROR(weights->NonZeros(n.Input(1), &nnz));
    // Every weight costs a little, zero or not: indices, tiles, rows.
    const double per_column = static_cast<double>(nnz) + 0.05 * static_cast<double>(w.data.rows) *
                                                             static_cast<double>(w.data.cols);
    const double columns =
        static_cast<double>(out.elements()) /
        static_cast<double>(std::max<int64_t>(1, out.dims[is_rows ? out.rank - 1 : 1]));
    work_[i] = per_column * columns;
    work_left_ += work_[i];
  }
  return Status::Ok();
}

Status PlanBuilder::StaysInCache(bool* is_small) {
  constexpr double kShare = 0.625;     // of L2: the rest holds what the layers read and write
  constexpr double kIndexBytes = 2.0;  // of a non-zero
  double bytes = 0.0;
  for (const Tensor& t : graph.tensors) {
    if (t.is_constant) bytes += static_cast<double>(DTypeSize(t.dtype)) * t.data.rows * t.data.cols;
  }
  for (const Node& n : graph.nodes) {
    if (!IsWeight(n.op, 1)) continue;
    const Tensor& w = graph.tensors[n.Input(1)];
    const double item = static_cast<double>(DTypeSize(w.dtype));
    uint64_t nnz = 0;
    SRT_RETURN_IF_ERROR(weights->NonZeros(n.Input(1), &nnz));
    const double sparse = (item + kIndexBytes) * static_cast<double>(nnz);
    bytes -= std::max(0.0, item * w.data.rows * w.data.cols - sparse);
  }
  *is_small = bytes <= kShare * static_cast<double>(options.cpu.l2_bytes);
  return Status::Ok();
}

double PlanBuilder::TuneBudget() const {
  // Twice its share: layers without a close race leave theirs.
  const double share = work_left_ > 0.0 ? 2.0 * work_[node_index] / work_left_ : 1.0;
  return std::max(0.0, tune_ns_left * std::min(1.0, share));
}

Status PlanBuilder::FailForMemory(const Status& status) const {
  if (options.memory_limit == 0) return Fail(status.code(), status.text());
  return NodeError(*node, status.code(),
                   "%s; tensors, plans and decoded constants have the limit of %llu bytes (the "
                   "memory of this machine, or SPARSERT_MEMORY_LIMIT)",
                   status.text(), static_cast<unsigned long long>(options.memory_limit));
}

Status PlanBuilder::Build() {
  stage_.threads = options.threads;
  SRT_RETURN_IF_ERROR(plan->nodes.resize(std::max<size_t>(1, graph.nodes.size())));
  for (NodePlan& p : plan->nodes) p = NodePlan();
  SRT_RETURN_IF_ERROR(PlaceInputs());
  SRT_RETURN_IF_ERROR(FindLastUses());
  SRT_RETURN_IF_ERROR(FindTileable());
  if (options.tune == Tune::kAuto) SRT_RETURN_IF_ERROR(EstimateWork());
  uint64_t elements = 0;
  for (const Tensor& t : graph.tensors) {
    if (t.is_constant) elements += static_cast<uint64_t>(t.data.rows) * t.data.cols;
  }
  if (options.tune != Tune::kOff) {
    bool is_small = false;
    SRT_RETURN_IF_ERROR(StaysInCache(&is_small));
    bench.set_warm(is_small);
  }
  weight_elements = static_cast<double>(elements);
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    node_index = static_cast<uint32_t>(i);
    node = &graph.nodes[i];
    info().first_step = static_cast<uint32_t>(plan->steps.size());
    const Status lowered = LowerNode();
    if (lowered.code() == StatusCode::kOutOfMemory) return FailForMemory(lowered);
    SRT_RETURN_IF_ERROR(lowered);
    if (IsWeight(node->op, 1)) weights->Forget(node->Input(1));
    if (!work_.empty()) work_left_ -= work_[i];
  }
  SRT_RETURN_IF_ERROR(WriteGraphOutputs());
  ExplainFormat();
  SRT_RETURN_IF_ERROR(ShareBands());
  SRT_RETURN_IF_ERROR(AssignArena());
  stage_.end_step = static_cast<uint32_t>(plan->steps.size());
  return plan->stages.push_back(stage_);
}

}  // namespace sparsert
