// Groups the tensors that elementwise ops connect and chooses a layout for each group.
#include "plan/choose_layouts.h"

#include <algorithm>

#include "graph/resolve.h"
#include "plan/place_concats.h"

namespace sparsert {
namespace {

// Fewer columns leave most lanes of a vector empty. Several images are multiplied one after the
// other: each should have columns enough to pay for reading the weights.
constexpr int64_t kMinColumns = 16;
constexpr int64_t kMinImageColumns = 64;
// Of a matrix: more are multiplied in slices, which stay in cache.
constexpr int64_t kMaxMatrixColumns = 512;

bool IsMatrix(const Shape& shape) { return shape.rank == 2; }

// Planes [N, C, ...] to [N, ..., C], or back, of at least two dimensions: others may be either.
bool TurnsPlanes(const int* perm, int rank, bool back) {
  bool turns = rank >= 4 && perm[0] == 0;
  for (int d = 1; d < rank; ++d) {
    const int from = back ? (d == 1 ? rank - 1 : d - 1) : (d == rank - 1 ? 1 : d + 1);
    turns &= perm[d] == from;
  }
  return turns;
}

class Groups {
 public:
  Groups(const Graph& graph, const ShapeTable& table)
      : graph_(graph),
        table_(table),
        members_(table.facts.allocator()),
        packs_(table.facts.allocator()),
        reshapes_(table.facts.allocator()) {}

  Status Build() {
    SRT_RETURN_IF_ERROR(members_.resize(graph_.tensors.size()));
    for (uint32_t t = 0; t < members_.size(); ++t) members_[t] = {t, Fits(t), false};
    for (uint32_t t : graph_.inputs) members_[t].fits = false;
    for (uint32_t t : graph_.outputs) members_[t].fits = false;
    SRT_RETURN_IF_ERROR(packs_.resize(graph_.tensors.size()));
    for (bool& packs : packs_) packs = false;
    for (const Node& node : graph_.nodes) {
      if (node.op == Op::kQuantizePacked || node.op == Op::kQuantizeDynamic) {
        packs_[node.inputs[0]] = true;
      }
      const bool computes = node.op == Op::kQElementwise || node.op == Op::kQAttention ||
                            node.op == Op::kQConvDynamic;
      if (computes || node.op == Op::kQConv || node.op == Op::kDequantizePacked) {
        packs_[node.outputs[0]] = true;
      }
      if (node.op == Op::kQElementwise && node.Input(3) != kNoTensor) {
        packs_[node.inputs[3]] = true;
      }
    }
    for (const Node& node : graph_.nodes) SRT_RETURN_IF_ERROR(Visit(node));
    // What holds for one member holds for its group: the root says it.
    for (uint32_t t = 0; t < members_.size(); ++t) {
      Member& root = members_[Root(t)];
      root.fits &= members_[t].fits;
      root.gains |= members_[t].gains;
    }
    return JoinReshapes();
  }

  bool IsFeatureMajor(uint32_t t) {
    const Member& root = members_[Root(t)];
    return root.fits && root.gains;
  }

 private:
  struct Member {
    uint32_t parent;  // towards the root of the group, which is its own parent
    bool fits;        // it may be feature-major
    bool gains;       // a matrix product wants it so
  };

  const Shape& ShapeOf(uint32_t t) const { return table_.facts[t].shape; }

  bool Fits(uint32_t t) const {
    const TensorFacts& f = table_.facts[t];
    if (graph_.tensors[t].is_constant || !f.has_shape || f.is_known || f.dtype != DType::kF32 ||
        f.shape.rank < 2 || f.shape.elements() == 0) {
      return false;
    }
    const int64_t columns = ColumnsOf(f.shape);
    if (IsMatrix(f.shape)) return columns >= kMinColumns && columns <= kMaxMatrixColumns;
    return columns >= (f.shape.dims[0] == 1 ? kMinColumns : kMinImageColumns);
  }

  uint32_t Root(uint32_t t) {
    while (members_[t].parent != t) {
      members_[t].parent = members_[members_[t].parent].parent;
      t = members_[t].parent;
    }
    return t;
  }
  void Join(uint32_t a, uint32_t b) { members_[Root(a)].parent = Root(b); }

  // A reshape that keeps images and features is a view of a feature-major input: both are, or its
  // output is not. A reshape of anything else is row-major.
  Status JoinReshapes() {
    for (bool changed = true; changed;) {
      changed = false;
      for (const Node* node : reshapes_) {
        Member& y = members_[Root(node->outputs[0])];
        if (!y.fits || members_[Root(node->inputs[0])].fits) continue;
        y.fits = false;
        changed = true;
      }
    }
    for (const Node* node : reshapes_) {
      const uint32_t x = Root(node->inputs[0]);
      const uint32_t y = Root(node->outputs[0]);
      if (x == y || !members_[y].fits) continue;
      members_[y].gains |= members_[x].gains;
      members_[x].parent = y;
    }
    return Status::Ok();
  }

  // Matrices are columns between products and elementwise ops only.
  static bool TakesMatrices(Op op) {
    return op == Op::kLinear || op == Op::kUnary || op == Op::kPRelu || op == Op::kBinary ||
           op == Op::kWhere;
  }
  void RejectMatrices(const Node& node) {
    for (const auto& tensors : {node.inputs, node.outputs}) {
      for (uint32_t t : tensors) {
        if (t != kNoTensor && IsMatrix(ShapeOf(t))) members_[t].fits = false;
      }
    }
  }

  void Reject(const Node& node) {
    for (uint32_t t : node.inputs) {
      if (t != kNoTensor) members_[t].fits = false;
    }
    for (uint32_t t : node.outputs) {
      if (t != kNoTensor) members_[t].fits = false;
    }
  }

  bool AlongFeatures(const Node& node) const {
    int axis = 0;
    const int rank = ShapeOf(node.inputs[0]).rank;
    return NormalizeAxis(node, node.IntAttr(AttrKey::k_axis, -1), rank, &axis).ok() &&
           axis == rank - 1;
  }

  bool ReducesFeatures(const Node& node) const {
    bool reduced[kMaxRank] = {};
    if (!ResolveReducedAxes(NodeView(graph_, table_, node), reduced).ok()) return false;
    const int rank = ShapeOf(node.inputs[0]).rank;
    for (int d = 0; d < rank; ++d) {
      if (reduced[d] != (d == rank - 1)) return false;
    }
    return true;
  }

  // One operand of an elementwise op with result y.
  void VisitOperand(uint32_t x, uint32_t y) {
    const Shape& from = ShapeOf(x);
    const Shape& to = ShapeOf(y);
    const int added = to.rank - from.rank;
    bool varies = false;  // along columns or images
    bool whole = added == 0;
    for (int d = 0; d + 1 < from.rank; ++d) {
      varies |= from.dims[d] != 1;
      whole &= from.dims[d] == to.dims[d + added];
    }
    if (!varies) return;  // one number for all columns: any layout will do
    if (whole) {
      Join(x, y);
    } else {
      members_[y].fits = false;
    }
  }

  // The same planes seen otherwise: a view.
  void VisitTurn(const Node& node) {
    int perm[kMaxRank] = {};
    if (!ResolvePermutation(NodeView(graph_, table_, node), perm).ok()) return;
    const int rank = ShapeOf(node.inputs[0]).rank;
    if (TurnsPlanes(perm, rank, false)) members_[node.outputs[0]].gains = true;
    if (TurnsPlanes(perm, rank, true)) members_[node.inputs[0]].gains = true;
  }

  Status Visit(const Node& node) {
    const uint32_t y = node.outputs[0];
    if (IsReshape(node.op) && node.op != Op::kBitCast) {
      RejectMatrices(node);
      if (KeepsFeatures(ShapeOf(node.inputs[0]), ShapeOf(y))) return reshapes_.push_back(&node);
      members_[y].fits = false;
      return Status::Ok();
    }
    VisitOther(node);
    return Status::Ok();
  }

  void VisitOther(const Node& node) {
    const uint32_t y = node.outputs[0];
    if (!TakesMatrices(node.op)) RejectMatrices(node);
    switch (node.op) {
      case Op::kLinear:
        for (const size_t i : {size_t{0}, size_t{3}}) {
          if (node.Input(i) != kNoTensor) members_[node.Input(i)].gains = true;
        }
        members_[y].gains = true;
        return;
      case Op::kTranspose:
        // Planes that become packed bytes, or come from them, are columns of what lies before or
        // behind the Transpose.
        if (packs_[y]) members_[node.inputs[0]].gains = true;
        if (packs_[node.inputs[0]]) members_[y].gains = true;
        VisitTurn(node);
        return;
      // These read and write any layout.
      case Op::kSlice:
      case Op::kSplit:
      case Op::kGather:
      case Op::kMatMul:
      case Op::kAttention:
      case Op::kLayerNormalization:
      case Op::kRMSNormalization:
        return;
      case Op::kUnary:
        Join(node.inputs[0], y);
        return;
      case Op::kPRelu:
      case Op::kBinary:
        VisitOperand(node.inputs[0], y);
        VisitOperand(node.inputs[1], y);
        return;
      case Op::kWhere:
        VisitOperand(node.inputs[1], y);
        VisitOperand(node.inputs[2], y);
        return;
      case Op::kSoftmax:
      case Op::kLogSoftmax:
        if (!AlongFeatures(node)) return Reject(node);
        Join(node.inputs[0], y);
        return;
      case Op::kConcat:
        if (!AlongFeatures(node)) return Reject(node);
        for (uint32_t x : node.inputs) Join(x, y);
        return;
      case Op::kReduce:
        if (!ReducesFeatures(node)) return Reject(node);
        if (ShapeOf(y).rank == ShapeOf(node.inputs[0]).rank) {
          Join(node.inputs[0], y);
        } else {
          members_[y].fits = false;
        }
        return;
      default:
        return Reject(node);
    }
  }

  const Graph& graph_;
  const ShapeTable& table_;
  Array<Member> members_;        // [tensors]
  Array<bool> packs_;            // [tensors] an op on packed bytes reads or writes it as floats
  Array<const Node*> reshapes_;  // those that keep images and features
};

}  // namespace

int64_t ColumnsOf(const Shape& shape) {
  if (IsMatrix(shape)) return shape.dims[0];
  int64_t columns = 1;
  for (int d = 1; d + 1 < shape.rank; ++d) columns *= shape.dims[d];
  return columns;
}

// Padded planes: whole vectors for every instruction set, and not a multiple of many cache lines,
// so that equal columns of successive planes do not fall into one cache set.
int64_t PlaneStride(int64_t plane) {
  int64_t lines = (plane + 15) / 16;
  if (lines >= 8 && lines % 2 == 0) ++lines;
  return lines * 16;
}

bool KeepsFeatures(const Shape& from, const Shape& to) {
  return from.rank >= 3 && to.rank >= 3 && from.dims[0] == to.dims[0] &&
         from.dims[from.rank - 1] == to.dims[to.rank - 1];
}

TensorDesc FeatureMajorDesc(const Shape& shape) {
  TensorDesc desc = PlainDesc(DType::kF32, shape);
  const int last = shape.rank - 1;
  if (IsMatrix(shape)) {
    desc.strides[0] = 1;
    desc.strides[1] = PlaneStride(shape.dims[0]);
    return desc;
  }
  int64_t stride = 1;
  for (int d = last - 1; d > 0; --d) {
    desc.strides[d] = stride;
    stride *= shape.dims[d];
  }
  desc.strides[last] = PlaneStride(stride);
  desc.strides[0] = desc.strides[last] * shape.dims[last];
  return desc;
}

// Whether dimensions [first, end) are one contiguous row-major block.
static bool IsBlock(const TensorDesc& desc, int first, int end) {
  int64_t expected = 1;
  for (int d = end - 1; d >= first; --d) {
    if (desc.shape.dims[d] != 1 && desc.strides[d] != expected) return false;
    expected *= desc.shape.dims[d];
  }
  return true;
}

bool IsFeatureMajor(const TensorDesc& desc) {
  const int last = desc.shape.rank - 1;
  return IsBlock(desc, 1, last) && desc.strides[last] >= ColumnsOf(desc.shape) &&
         desc.strides[0] >= desc.strides[last] * desc.shape.dims[last];
}

bool IsPlanes(const TensorDesc& desc) {
  return desc.shape.rank >= 3 && IsBlock(desc, 2, desc.shape.rank) &&
         desc.strides[1] >= desc.plane() && desc.strides[0] >= desc.strides[1] * desc.shape.dims[1];
}

size_t StorageBytes(const TensorDesc& desc) {
  if (desc.shape.rank == 0) return DTypeSize(desc.dtype);
  int64_t elements = 0;
  for (int d = 0; d < desc.shape.rank; ++d) {
    elements = std::max(elements, desc.strides[d] * desc.shape.dims[d]);
  }
  return static_cast<size_t>(elements) * DTypeSize(desc.dtype);
}

Status ChooseLayouts(const Graph& graph, const ShapeTable& table, Array<bool>* feature_major) {
  SRT_RETURN_IF_ERROR(feature_major->resize(graph.tensors.size()));
  Groups groups(graph, table);
  SRT_RETURN_IF_ERROR(groups.Build());
  for (size_t t = 0; t < graph.tensors.size(); ++t) {
    (*feature_major)[t] = groups.IsFeatureMajor(static_cast<uint32_t>(t));
  }
  return Status::Ok();
}

}  // namespace sparsert
