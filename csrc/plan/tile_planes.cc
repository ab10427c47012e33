// Which tensors between convolutions lie in tiles of columns instead of planes.
//
// A step of spmm computes a tile of columns of all planes at a time. Where the steps that read a
// tensor cut it into the tiles of the step that writes it, each tile may be a stretch of memory of
// its own: its rows do not compete for the same sets of a cache, hardware prefetchers follow them,
// and threads that share tiles have no cache lines side by side. The memory that a tensor takes as
// planes holds its tiles as well, image by image.
#include "plan/builder.h"
#include "plan/conv_operands.h"

namespace sparsert {
namespace {

// Fewer columns are one tile or two, which planes so small nearly are anyway.
constexpr int64_t kMinTiledColumns = 100;

// A layer takes tiles that it is predicted to be this much slower with than with its own; to read
// them it must, so no candidate that has none may be so close that measuring might choose it.
constexpr double kAgreeable = 1.03;
constexpr double kClose = 1.3;

constexpr int kMaxTilings = 4;  // to choose from

// What RankSpmm() asks of a convolution of floats in one group. False: it is none.
Status OperandsOf(const PlanBuilder& b, const Node& n, SpmmOperands* o, bool* is_one) {
  *is_one = n.op == Op::kConv && n.IntAttr(AttrKey::k_group, 1) == 1;
  if (!*is_one) return Status::Ok();
  const Tensor& w = b.graph.tensors[n.Input(1)];
  const Span<int64_t> kernel_shape = {w.dims + 2, static_cast<size_t>(w.rank - 2)};
  SRT_RETURN_IF_ERROR(ResolveWindow(n, b.facts(n.Input(0)).shape, kernel_shape, &o->window));
  o->key.tensor = n.Input(1);
  o->key.taps = static_cast<int32_t>(o->window.kernel[0] * o->window.kernel[1]);
  o->batch = b.facts(n.outputs[0]).shape.dims[0];
  o->columns = o->window.out[0] * o->window.out[1];
  o->may_be_direct = IsPointwise(o->window) || IsSubsampled(o->window);
  o->may_tile = true;
  return Status::Ok();
}

bool SameTiles(const Tiling& a, const Tiling& b) {
  return a.lanes == b.lanes && a.vecs == b.vecs && a.tiles == b.tiles;
}

// Predicted times of a convolution with its own tiles and with those given.
struct Prediction {
  double free_ns = 0.0;
  double tiled_ns = 0.0;  // 0: it cannot compute such tiles
  double other_ns = 0.0;  // of the best that computes no tiles that a tensor may lie in; 0: none
  Tiling own;             // tiles == 0: none that a tensor may lie in
  bool may_write() const { return tiled_ns > 0.0 && tiled_ns <= kAgreeable * free_ns; }
  bool may_read() const { return may_write() && (other_ns == 0.0 || other_ns > kClose * tiled_ns); }
};

Status Predict(PlanBuilder* b, SpmmOperands o, const Tiling* tiling, Prediction* p) {
  SpmmLayer free(b, o);
  SRT_RETURN_IF_ERROR(free.Rank());
  *p = Prediction();
  if (free.count() == 0) return Status::Ok();
  p->free_ns = free.CandidateOf(0).predicted_ns;
  if (free.HasTiles(0)) p->own = free.TilingOf(0);
  for (int n = 0; n < free.count() && p->other_ns == 0.0; ++n) {
    if (!free.HasTiles(n)) p->other_ns = free.CandidateOf(n).predicted_ns;
  }
  if (tiling == nullptr) return Status::Ok();
  o.tiling = tiling;
  o.x_in_tiles = true;
  SpmmLayer tiled(b, o);
  SRT_RETURN_IF_ERROR(tiled.Rank());
  if (tiled.count() > 0) p->tiled_ns = tiled.CandidateOf(0).predicted_ns;
  return Status::Ok();
}

// OperandsOf() a node that needs the tiles of `t` to be its own. False: it does not read `t`, or
// picks its columns apart, whatever the tiles.
Status ReaderOf(const PlanBuilder& b, const Node& n, uint32_t t, SpmmOperands* o, bool* reads) {
  *reads = n.Input(0) == t || n.Input(3) == t;
  if (!*reads) return Status::Ok();
  SRT_RETURN_IF_ERROR(OperandsOf(b, n, o, reads));
  *reads = *reads && (n.Input(3) == t || !IsSubsampled(o->window));
  return Status::Ok();
}

}  // namespace

// A tensor may if all that read it do so by spmm, as X or R of a 1 x 1 convolution. Other
// convolutions may be computed otherwise.
Status PlanBuilder::FindTileable() {
  SRT_RETURN_IF_ERROR(is_tileable_.resize(graph.tensors.size()));
  SRT_RETURN_IF_ERROR(tilings_.resize(graph.tensors.size()));
  for (Tiling& tiling : tilings_) tiling = Tiling();
  for (bool& tileable : is_tileable_) tileable = false;
  if (!kHasTiledPlanes) return Status::Ok();
  for (const Node& n : graph.nodes) {
    if (n.op != Op::kConv || n.IntAttr(AttrKey::k_group, 1) != 1) continue;
    const uint32_t t = n.outputs[0];
    const Shape& shape = facts(t).shape;
    is_tileable_[t] =
        shape.elements() != 0 && PlainDesc(DType::kF32, shape).plane() >= kMinTiledColumns &&
        output_of_[t] == kNoTensor && concat_parts_[t].whole == kNoTensor && !feature_major_[t];
  }
  for (const Node& n : graph.nodes) {
    SpmmOperands o;
    bool is_product = false;
    SRT_RETURN_IF_ERROR(OperandsOf(*this, n, &o, &is_product));
    is_product = is_product && o.key.taps == 1;
    for (size_t i = 0; i < n.inputs.size; ++i) {
      const uint32_t t = n.inputs[i];
      if (t == kNoTensor) continue;
      const bool takes_tiles = is_product && o.may_be_direct && (i == 0 || i == 3);
      is_tileable_[t] = is_tileable_[t] && takes_tiles;
    }
  }
  return Status::Ok();
}

Status PlanBuilder::AskReaders(uint32_t t, const Tiling& tiling, double* ns, bool* agree) {
  for (uint32_t i = node_index + 1; i <= last_use_[t]; ++i) {
    const Node& n = graph.nodes[i];
    SpmmOperands o;
    bool reads = false;
    SRT_RETURN_IF_ERROR(ReaderOf(*this, n, t, &o, &reads));
    if (!reads) continue;
    Prediction p;
    SRT_RETURN_IF_ERROR(Predict(this, o, &tiling, &p));
    *ns += p.tiled_ns;
    *agree = *agree && p.may_read();
    // X and R lie in the same tiles.
    for (const uint32_t other : {IsSubsampled(o.window) ? kNoTensor : n.Input(0), n.Input(3)}) {
      const Tiling* has = other == t ? nullptr : TilingOf(other);
      *agree = *agree && (has == nullptr || SameTiles(*has, tiling));
    }
  }
  return Status::Ok();
}

Status PlanBuilder::ChooseOutputTiling() {
  output_tiling_ = Tiling();
  if (!kHasTiledPlanes || node->op != Op::kConv || !is_tileable_[node->outputs[0]]) {
    return Status::Ok();
  }
  const uint32_t y = node->outputs[0];
  Tiling tilings[kMaxTilings];
  int count = 0;
  const auto add = [&](const Tiling& tiling) {
    for (int i = 0; i < count; ++i) {
      if (SameTiles(tilings[i], tiling)) return;
    }
    if (tiling.tiles > 1 && count < kMaxTilings) tilings[count++] = tiling;
  };
  SpmmOperands self;
  bool is_one = false;
  SRT_RETURN_IF_ERROR(OperandsOf(*this, *node, &self, &is_one));
  const Tiling* given = IsSubsampled(self.window) ? nullptr : TilingOf(node->Input(0));
  if (given == nullptr) given = TilingOf(node->Input(3));
  if (given != nullptr) {
    add(*given);
  } else {
    Prediction p;
    SRT_RETURN_IF_ERROR(Predict(this, self, nullptr, &p));
    if (p.own.tiles == 0) return Status::Ok();  // its step will write planes
    add(p.own);
    for (uint32_t i = node_index + 1; i <= last_use_[y]; ++i) {
      SpmmOperands o;
      bool reads = false;
      SRT_RETURN_IF_ERROR(ReaderOf(*this, graph.nodes[i], y, &o, &reads));
      if (!reads) continue;
      SRT_RETURN_IF_ERROR(Predict(this, o, nullptr, &p));
      if (p.own.tiles != 0) add(p.own);
    }
  }
  double least = 0.0;
  for (int i = 0; i < count; ++i) {
    Prediction p;
    SRT_RETURN_IF_ERROR(Predict(this, self, &tilings[i], &p));
    double ns = p.tiled_ns;
    bool agree = given != nullptr || p.may_write();
    SRT_RETURN_IF_ERROR(AskReaders(y, tilings[i], &ns, &agree));
    if (!agree || (least != 0.0 && ns >= least)) continue;
    least = ns;
    output_tiling_ = tilings[i];
  }
  return Status::Ok();
}

void PlanBuilder::PlaceTiles(SpmmOperands* o) const {
  if (!kHasTiledPlanes || node->op != Op::kConv || o->key.groups != 1) return;
  const uint32_t x = node->Input(0);
  const uint32_t r = node->Input(3);
  const uint32_t y = node->outputs[0];
  o->x_in_tiles = !IsSubsampled(o->window) && TilingOf(x) != nullptr;
  o->r_in_tiles = TilingOf(r) != nullptr;
  const bool overwrites_planes = r != kNoTensor && !o->r_in_tiles && ref(r).kind == ref(y).kind &&
                                 ref(r).index == ref(y).index;
  o->y_in_tiles = output_tiling_.tiles != 0 && ref(y).kind == IoRef::kArena && !overwrites_planes;
  o->tiling = o->x_in_tiles ? TilingOf(x) : o->r_in_tiles ? TilingOf(r) : nullptr;
  if (o->y_in_tiles && o->tiling == nullptr) o->tiling = &output_tiling_;
  o->may_tile = is_tileable_[x] || is_tileable_[y];
}

void PlanBuilder::TileOutput() {
  tilings_[node->outputs[0]] = output_tiling_;
  AddToReason(node_index, "; writes tiles");
}

}  // namespace sparsert
