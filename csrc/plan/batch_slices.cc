// Which graphs treat images one by one, and how many images a slice takes.
#include "plan/batch_slices.h"

#include <algorithm>

#include "graph/resolve.h"

namespace sparsert {
namespace {

// Inputs and outputs of the largest op of a slice: about what L2 holds.
constexpr double kSliceBytes = 2 << 20;
// The same of the last layers, where weights count for more.
constexpr double kTailBytes = 8 << 20;
// Of the whole batch: the activations of the largest op of the last layers, and what is passed on
// to them.
constexpr double kPassedBytes = 64 << 20;
// Of an image: what it must save to run the last layers apart.
constexpr double kWorthBytes = 256 << 10;

class ImageRule {
 public:
  ImageRule(const Graph& graph, const ShapeTable& facts, int64_t images)
      : graph_(graph), facts_(facts), images_(images) {}

  bool Holds(const Node& node) const {
    bool known = true;
    for (uint32_t t : node.outputs) known &= t == kNoTensor || facts_.facts[t].is_known;
    if (known) return true;  // shape arithmetic: done anew for the slice
    for (uint32_t t : node.inputs) {
      if (t != kNoTensor && !IsShared(t) && !IsBatch(t)) return false;
    }
    for (uint32_t t : node.outputs) {
      if (t != kNoTensor && !IsBatch(t)) return false;
    }
    return Separates(NodeView(graph_, facts_, node));
  }

  // The same for all images: a constant, or known at plan time.
  bool IsShared(uint32_t t) const {
    return graph_.tensors[t].is_constant || facts_.facts[t].is_known;
  }
  bool IsBatch(uint32_t t) const {
    const TensorFacts& f = facts_.facts[t];
    return !IsShared(t) && f.has_shape && f.shape.rank >= 1 && f.shape.dims[0] == images_;
  }

 private:
  // Operand i of a broadcasting op, whose one output is present.
  bool AlignsImages(const NodeView& v, size_t i) const {
    const int rank = facts_.facts[v.node.outputs[0]].shape.rank;
    if (!IsShared(v.node.inputs[i])) return v.InShape(i).rank == rank;
    const Tensor& t = v.InTensor(i);
    const int own = t.is_constant ? t.rank : v.InShape(i).rank;
    if (own < rank) return true;
    return (t.is_constant ? t.dims[0] : v.InShape(i).dims[0]) == 1;
  }

  // The mask of an Attention, input i: one for each image, or one for all of them.
  bool MasksImages(const NodeView& v, size_t i) const {
    const Shape& mask = v.InShape(i);
    const bool each = mask.rank == 4 && mask.dims[0] != 1;
    return each ? IsBatch(v.node.Input(i)) : IsShared(v.node.Input(i));
  }

  bool AxisIsInside(const NodeView& v, int64_t fallback) const {
    int axis = 0;
    const Status status =
        NormalizeAxis(v.node, v.node.IntAttr(AttrKey::k_axis, fallback), v.InShape(0).rank, &axis);
    return status.ok() && axis != 0;
  }

  // The node's inputs and outputs have the images in dimension 0, or are shared.
  bool Separates(const NodeView& v) const {
    const Node& n = v.node;
    const bool from_images = n.Input(0) != kNoTensor && IsBatch(n.Input(0));
    switch (n.op) {
      case Op::kConv:
      case Op::kConvTranspose:
      case Op::kBatchNormalization:
      case Op::kUnary:
      case Op::kAveragePool:
      case Op::kGlobalAveragePool:
      case Op::kGlobalMaxPool:
      case Op::kQuantizePacked:
      case Op::kDequantizePacked:
      case Op::kQMaxPool:
      case Op::kQAveragePool:
      case Op::kQLookup:
      case Op::kCast:
      case Op::kIdentity:
      // Row-major views: image i stays image i when dimension 0 does.
      case Op::kReshape:
      case Op::kFlatten:
      case Op::kSqueeze:
      case Op::kUnsqueeze:
        return from_images;
      case Op::kMaxPool:
        // Indices count through all images.
        return from_images && n.outputs.size == 1;
      case Op::kResize:
        // A crop moves along any dimension.
        return from_images && !v.Has(1);
      case Op::kGridSample:
      case Op::kDeformColumns:
        return from_images && IsBatch(n.Input(1)) && (!v.Has(2) || IsBatch(n.Input(2)));
      case Op::kLayerNormalization:
      case Op::kRMSNormalization:
        return from_images && AxisIsInside(v, -1) && IsShared(n.Input(1)) &&
               (!v.Has(2) || IsShared(n.Input(2)));
      case Op::kAttention:
        return from_images && IsBatch(n.Input(1)) && IsBatch(n.Input(2)) &&
               (!v.Has(3) || MasksImages(v, 3));
      case Op::kMatMul: {
        const int rank = facts_.facts[n.outputs[0]].shape.rank;
        return rank >= 3 && AlignsImages(v, 0) && AlignsImages(v, 1);
      }
      case Op::kWhere:
        return AlignsImages(v, 0) && AlignsImages(v, 1) && AlignsImages(v, 2);
      case Op::kCompare:
        return AlignsImages(v, 0) && (!v.Has(1) || AlignsImages(v, 1));
      case Op::kQConv:
      case Op::kQDepthwise:
        return from_images && (!v.Has(4) || IsBatch(n.Input(4)));
      case Op::kQAdd:
        return from_images && IsBatch(n.Input(1));
      case Op::kQElementwise:
        return from_images && (!v.Has(3) || IsBatch(n.Input(3)));
      case Op::kQAttention:
        return from_images && IsBatch(n.Input(1)) && IsBatch(n.Input(2)) &&
               (!v.Has(4) || MasksImages(v, 4));
      case Op::kLinear:
        return from_images && v.InShape(0).rank >= 2;
      case Op::kPRelu:
      case Op::kBinary:
        return AlignsImages(v, 0) && AlignsImages(v, 1);
      case Op::kConcat:
        for (uint32_t t : n.inputs) {
          if (!IsBatch(t)) return false;
        }
        return AxisIsInside(v, 0);
      case Op::kSoftmax:
      case Op::kLogSoftmax:
        return from_images && AxisIsInside(v, -1);
      case Op::kGather:
        // Indices of the images into a shared table, or shared ones into each image.
        if (IsShared(n.Input(0))) return IsBatch(n.Input(1)) && !AxisIsInside(v, 0);
        return IsShared(n.Input(1)) && AxisIsInside(v, 0);
      case Op::kSplit: {
        int axis = 0;
        return from_images && ResolveSplitAxis(v, &axis).ok() && axis != 0;
      }
      case Op::kSlice: {
        SliceRange range;
        return from_images && ResolveSlice(v, &range).ok() && range.start[0] == 0 &&
               range.step[0] == 1;
      }
      case Op::kTranspose: {
        int perm[kMaxRank];
        return from_images && ResolvePermutation(v, perm).ok() && perm[0] == 0;
      }
      case Op::kPad: {
        PadRange range;
        return from_images && ResolvePad(v, &range).ok() && range.begin[0] == 0 &&
               range.end[0] == 0;
      }
      case Op::kReduce: {
        bool reduced[kMaxRank];
        return from_images && ResolveReducedAxes(v, reduced).ok() && !reduced[0];
      }
      default:
        return false;
    }
  }

  const Graph& graph_;
  const ShapeTable& facts_;
  const int64_t images_;
};

// The images that the inputs agree on in dimension 0; 0 when they do not.
int64_t CountImages(const Graph& graph, const ShapeTable& facts) {
  int64_t images = 0;
  for (uint32_t t : graph.inputs) {
    const Shape& shape = facts.facts[t].shape;
    if (facts.facts[t].is_known) return 0;  // the same for all images, and not to be cut
    if (shape.rank < 1 || (images != 0 && shape.dims[0] != images)) return 0;
    images = shape.dims[0];
  }
  return images;
}

// Images of a slice: the largest divisor of all `images` of which an op's activations are no more
// than `bytes`.
int64_t SliceImages(int64_t images, double image_bytes, double bytes, int64_t most) {
  const int64_t limit = std::min(most, static_cast<int64_t>(bytes / std::max(1.0, image_bytes)));
  int64_t best = 1;
  for (int64_t d = 1; d <= limit; ++d) {
    if (images % d == 0) best = d;
  }
  return best;
}

void SetSlices(int64_t images, int64_t slice_images, int threads, BatchStage* stage) {
  stage->slice_images = slice_images;
  stage->slices = static_cast<int32_t>(images / slice_images);
  stage->slice_per_thread =
      threads > 1 && (stage->slices % threads == 0 || stage->slices >= 4 * threads);
}

// About the bytes that a layer with so many non-zeros reads of its weights.
double WeightBytes(const Tensor& w, uint64_t nonzeros) {
  constexpr double kIndexBytes = 2.0;  // of a non-zero
  const auto item = static_cast<double>(DTypeSize(w.dtype));
  return std::min(item * static_cast<double>(w.data.rows) * static_cast<double>(w.data.cols),
                  (item + kIndexBytes) * static_cast<double>(nonzeros));
}

// Sets [nodes] how many tensors, computed by a node or one before it, nodes behind it read; those
// that are not of floats count as many.
Status CountPassed(const Graph& graph, const ImageRule& rule, const ShapeTable& facts,
                   Array<uint32_t>* counts) {
  const auto nodes = static_cast<uint32_t>(graph.nodes.size());
  Array<uint32_t> last_use(facts.facts.allocator());
  SRT_RETURN_IF_ERROR(last_use.resize(graph.tensors.size()));
  SRT_RETURN_IF_ERROR(counts->resize(nodes));
  for (uint32_t n = 0; n < nodes; ++n) {
    for (uint32_t t : graph.nodes[n].inputs) {
      if (t != kNoTensor) last_use[t] = n;
    }
  }
  for (uint32_t n = 0; n < nodes; ++n) {
    for (uint32_t t : graph.nodes[n].outputs) {
      if (t == kNoTensor || rule.IsShared(t)) continue;
      const uint32_t count = facts.facts[t].dtype == DType::kF32 ? 1 : 2;
      for (uint32_t k = n; k < last_use[t]; ++k) (*counts)[k] += count;
    }
  }
  return Status::Ok();
}

// Lets the last layers have slices of their own if that saves more reading of weights than it costs
// of activations.
Status CutTail(const Graph& graph, const ShapeTable& facts, const ImageRule& rule, int threads,
               const Array<double>& image_bytes, double most_bytes, Weights* weights,
               BatchSlices* cut) {
  Array<uint32_t> passed(facts.facts.allocator());
  SRT_RETURN_IF_ERROR(CountPassed(graph, rule, facts, &passed));
  BatchStage& head = cut->stages[0];
  BatchStage tail;
  const auto images = static_cast<double>(cut->images);
  double largest = 0.0;
  double weight_bytes = 0.0;
  double spilt = 0.0;  // of an image, bytes that no longer stay in L2
  double best = kWorthBytes;
  for (uint32_t n = head.end_node; n-- > 1;) {
    const uint32_t w = graph.nodes[n].Input(1);
    if (IsWeight(graph.nodes[n].op, 1) && graph.tensors[w].is_constant) {
      uint64_t nonzeros = 0;
      SRT_RETURN_IF_ERROR(weights->NonZeros(w, &nonzeros));
      weight_bytes += WeightBytes(graph.tensors[w], nonzeros);
    }
    largest = std::max(largest, image_bytes[n]);
    if (image_bytes[n] * images > kSliceBytes) spilt += image_bytes[n];
    if (largest * images > most_bytes) break;
    if (passed[n - 1] != 1) continue;
    const int64_t own_images = SliceImages(cut->images, largest, kTailBytes, cut->images);
    if (own_images <= head.slice_images) break;
    const double saved = weight_bytes / static_cast<double>(head.slice_images) -
                         weight_bytes / static_cast<double>(own_images) - spilt;
    if (saved <= best) continue;
    best = saved;
    tail.first_node = n;
    SetSlices(cut->images, own_images, threads, &tail);
  }
  if (tail.first_node == 0) return Status::Ok();
  tail.end_node = head.end_node;
  head.end_node = tail.first_node;
  cut->stages[1] = tail;
  cut->stage_count = 2;
  return Status::Ok();
}

}  // namespace

Status ChooseBatchSlices(const Graph& graph, const ShapeTable& facts, int threads,
                         uint64_t memory_limit, Weights* weights, BatchSlices* cut) {
  *cut = BatchSlices();
  const int64_t images = CountImages(graph, facts);
  if (images < 2) return Status::Ok();
  const ImageRule rule(graph, facts, images);
  Array<double> image_bytes(facts.facts.allocator());  // of each op's activations
  SRT_RETURN_IF_ERROR(image_bytes.resize(graph.nodes.size()));
  double largest = 0.0;
  for (size_t n = 0; n < graph.nodes.size(); ++n) {
    const Node& node = graph.nodes[n];
    if (!rule.Holds(node)) return Status::Ok();
    const auto add = [&](uint32_t t) {
      if (t == kNoTensor || !rule.IsBatch(t)) return;
      const TensorFacts& f = facts.facts[t];
      image_bytes[n] += static_cast<double>(f.shape.elements()) / static_cast<double>(images) *
                        static_cast<double>(DTypeSize(f.dtype));
    };
    for (uint32_t t : node.inputs) add(t);
    for (uint32_t t : node.outputs) add(t);
    largest = std::max(largest, image_bytes[n]);
  }
  for (uint32_t t : graph.outputs) {
    if (!rule.IsBatch(t)) return Status::Ok();
  }
  if (largest * static_cast<double>(images) <= kSliceBytes) return Status::Ok();
  cut->images = images;
  cut->stage_count = 1;
  cut->stages[0].end_node = static_cast<uint32_t>(graph.nodes.size());
  // None of the threads stays idle.
  const int64_t most = std::max<int64_t>(1, images / threads);
  SetSlices(images, SliceImages(images, largest, kSliceBytes, most), threads, &cut->stages[0]);
  double most_bytes = kPassedBytes;
  if (memory_limit != 0) most_bytes = std::min(most_bytes, static_cast<double>(memory_limit) / 4);
  return CutTail(graph, facts, rule, threads, image_bytes, most_bytes, weights, cut);
}

bool SlicesAgree(const Graph& graph, const ShapeTable& facts, const ShapeTable& slice,
                 int64_t images, int64_t slice_images) {
  for (size_t t = 0; t < facts.facts.size(); ++t) {
    if (graph.tensors[t].is_constant) continue;  // its dimension 0 may equal the batch by chance
    const TensorFacts& whole = facts.facts[t];
    const TensorFacts& part = slice.facts[t];
    if (whole.has_shape != part.has_shape || whole.is_known != part.is_known) return false;
    if (!whole.has_shape || whole.is_known) continue;
    if (whole.dtype != part.dtype || whole.shape.rank != part.shape.rank) return false;
    for (int d = 0; d < whole.shape.rank; ++d) {
      const bool cut_here = d == 0 && whole.shape.dims[0] == images;
      if (part.shape.dims[d] != (cut_here ? slice_images : whole.shape.dims[d])) return false;
    }
  }
  return true;
}

}  // namespace sparsert
