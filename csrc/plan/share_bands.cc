// Steps over large planes take turns: each computes a few rows of all planes, which the next one
// reads while they are in cache. What is passed on lies in a buffer of these rows alone; where a
// window reads rows of the band before, they are moved to the buffer's beginning.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <utility>

#include "kernels/copy/copy.h"
#include "plan/builder.h"
#include "plan/choose_layouts.h"

namespace sparsert {
namespace {

// Bytes of all planes, and their share of L2, from which on they do not stay there anyway.
constexpr double kLargeBytes = 1024.0 * 1024.0;
constexpr double kLargeShare = 0.6;
// Of L2: the buffers between steps that take turns. The rest holds what goes in and out.
constexpr double kBuffersShare = 0.35;
// A band of fewer rows moves too many of them, and depthwise kernels compute several at a time.
constexpr int64_t kMinBandRows = 4;
constexpr int kMaxTurns = 8;

size_t Bytes(int64_t floats) { return static_cast<size_t>(floats) * sizeof(float); }

int64_t OutRows(const PlaneStep& s) {
  return s.depthwise != nullptr ? s.depthwise->out_h : s.height;
}
int64_t OutWidth(const PlaneStep& s) {
  return s.depthwise != nullptr ? s.depthwise->out_w : s.width;
}
int64_t Channels(const PlaneStep& s) {
  return s.depthwise != nullptr ? s.depthwise->channels : s.product->weights->rows;
}

// The input rows that a step reads for its output rows [begin, end).
int64_t ReadBegin(const PlaneStep& s, int64_t begin) {
  const DwconvArgs* d = s.depthwise;
  return d == nullptr ? begin : std::max<int64_t>(0, begin * d->stride_h - d->pad_h);
}
int64_t ReadEnd(const PlaneStep& s, int64_t end) {
  const DwconvArgs* d = s.depthwise;
  if (d == nullptr) return end;
  const int64_t reach = (d->kernel_h - 1) * d->dilation_h + 1;
  return std::min(d->in_h, (end - 1) * d->stride_h - d->pad_h + reach);
}

// Successive steps, and how many rows of the last one's output are a band.
struct Turns {
  const PlaneStep* steps;
  int count;
  int64_t rows = 0;

  const PlaneStep& last() const { return steps[count - 1]; }
  int64_t bands() const { return (OutRows(last()) + rows - 1) / rows; }

  // Step k computes its output rows [Begin(k, n), End(k, n)) in band n, while its buffer holds
  // those from HeldBegin(k, n) on.
  int64_t End(int k, int64_t n) const {
    if (n < 0) return 0;
    int64_t end = std::min(OutRows(last()), (n + 1) * rows);
    for (int i = count - 1; i > k; --i) end = ReadEnd(steps[i], end);
    return end;
  }
  int64_t Begin(int k, int64_t n) const { return End(k, n - 1); }
  int64_t HeldBegin(int k, int64_t n) const { return ReadBegin(steps[k + 1], Begin(k + 1, n)); }
  // How many rows of the band before are still needed.
  int64_t Moved(int k, int64_t n) const {
    if (n == 0 || Begin(k + 1, n) >= End(k + 1, n)) return 0;
    return std::max<int64_t>(0, Begin(k, n) - HeldBegin(k, n));
  }
  // Whether they move beyond where they lay.
  bool MovesApart() const {
    for (int k = 0; k + 1 < count; ++k) {
      for (int64_t n = 1; n < bands(); ++n) {
        if (Moved(k, n) > HeldBegin(k, n) - HeldBegin(k, n - 1)) return false;
      }
    }
    return true;
  }
  // Floats between planes in the buffer behind step k.
  int64_t Stride(int k) const {
    int64_t most = 0;
    for (int64_t n = 0; n < bands(); ++n) {
      most = std::max(most, End(k, n) - HeldBegin(k, n));
    }
    return PlaneStride(most * OutWidth(steps[k]));
  }
  size_t BufferBytes() const {
    size_t bytes = 0;
    for (int k = 0; k + 1 < count; ++k) bytes += Bytes(Stride(k) * Channels(steps[k]));
    return bytes;
  }
  // As many rows as `limit` bytes of buffers hold. False: too few.
  bool ChooseRows(size_t limit) {
    const int64_t all = OutRows(last());
    for (int64_t n = 2; all / n >= kMinBandRows; ++n) {
      rows = (all + n - 1) / n;
      if (BufferBytes() <= limit && MovesApart()) return true;
    }
    return false;
  }
};

}  // namespace

Status PlanBuilder::NotePlaneStep(PlaneStep step) {
  step.step = static_cast<uint32_t>(plan->steps.size()) - 1;
  return plane_steps_.push_back(step);
}

const char* PlanBuilder::WhyNoTurns(const PlaneStep& s) const {
  constexpr const char* kBatch = "a batch";
  if (s.depthwise != nullptr) {
    if (!s.depthwise->by_rows) return "its window is not read row by row";
    return s.depthwise->batch == 1 ? nullptr : kBatch;
  }
  const SpmmArgs& m = *s.product;
  if (s.squares) return "squares for AMX";
  if (m.batch != 1) return kBatch;
  if (m.x_in_tiles || m.r_in_tiles || m.y_in_tiles) return "tensors in tiles";
  if (!m.direct || m.groups != 1 || m.columns != s.height * s.width) return "";
  return m.splits == 1 && !m.by_blocks ? nullptr : "its weights' rows are split";
}

const char* PlanBuilder::WhyNotPassedOn(const PlaneStep& from, const PlaneStep& to) const {
  constexpr const char* kNoNeighbours = "";
  if (to.step != from.step + 1) return kNoNeighbours;
  const Step& first = plan->steps[from.step];
  const Step& second = plan->steps[to.step];
  const IoRef& between = first.io[2];
  const IoRef& read = second.io[0];
  if (between.kind != IoRef::kArena || read.kind != IoRef::kArena || read.index != between.index ||
      read.offset != 0 || between.offset != 0) {
    return kNoNeighbours;
  }
  for (const PlaneStep* s : {&from, &to}) {
    if (const char* why = WhyNoTurns(*s)) return why;
  }
  int uses = 0;
  for (const Step& step : plan->steps) {
    for (int i = 0; i < step.io_count; ++i) {
      const IoRef& io = step.io[i];
      uses += io.kind == IoRef::kArena && io.index == between.index ? 1 : 0;
    }
  }
  if (uses != 2) return "another layer reads the same";
  const double bytes = static_cast<double>(Bytes(OutRows(from) * OutWidth(from) * Channels(from)));
  const double share = kLargeShare * static_cast<double>(options.cpu.l2_bytes);
  if (bytes < std::max(kLargeBytes, share)) return "small planes";
  return options.threads > 1 ? "several threads" : nullptr;
}

Status PlanBuilder::ShareBands() {
  const auto limit = static_cast<size_t>(kBuffersShare * static_cast<double>(options.cpu.l2_bytes));
  Array<MovedRows> moves(plane_steps_.allocator());
  for (size_t i = 0; i < plane_steps_.size();) {
    Turns best = {&plane_steps_[i], 1};
    const size_t most = std::min<size_t>(kMaxTurns, plane_steps_.size() - i);
    for (int count = 2; count <= static_cast<int>(most); ++count) {
      const PlaneStep& reader = plane_steps_[i + count - 1];
      const char* why = WhyNotPassedOn(plane_steps_[i + count - 2], reader);
      Turns turns = {&plane_steps_[i], count};
      if (why == nullptr && !turns.ChooseRows(limit)) why = "L2 holds too few rows";
      if (why != nullptr) {
        if (*why != '\0')
          AddToReason(plan->steps[reader.step].node, "; no turns with the layer before: %s", why);
        break;
      }
      best = turns;
    }
    if (best.count > 1) SRT_RETURN_IF_ERROR(TakeTurns(best.steps, best.count, best.rows, &moves));
    i += static_cast<size_t>(best.count);
  }
  return InsertMoves(moves);
}

Status PlanBuilder::TakeTurns(const PlaneStep* steps, int count, int64_t rows,
                              Array<MovedRows>* moves) {
  const Turns t = {steps, count, rows};
  const auto bands = static_cast<size_t>(t.bands());
  const uint32_t first_node = plan->steps[steps[0].step].node;
  const uint32_t last_node = plan->steps[t.last().step].node;
  int64_t x_stride = 0;  // of the buffer before
  const size_t moves_before = moves->size();
  for (int k = 0; k < count; ++k) {
    Step& step = plan->steps[steps[k].step];
    const bool is_last = k == count - 1;
    const int64_t width = OutWidth(steps[k]);
    const int64_t stride = is_last ? 0 : t.Stride(k);
    auto* of_bands = plan->memory.Allocate<StepBand>(bands);
    if (of_bands == nullptr) return Status::OutOfMemory("bands", bands * sizeof(StepBand));
    for (size_t n = 0; n < bands; ++n) {
      StepBand& band = *new (of_bands + n) StepBand();
      const auto number = static_cast<int64_t>(n);
      const int64_t begin = t.Begin(k, number);
      const int64_t end = t.End(k, number);
      const int64_t y_begin = is_last ? 0 : t.HeldBegin(k, number);
      const int64_t x_begin = k == 0 ? 0 : t.HeldBegin(k - 1, number);
      const int64_t row_in = ReadBegin(steps[k], begin);
      const int64_t in_width = steps[k].depthwise != nullptr ? steps[k].depthwise->in_w : width;
      band.shift[0] = Bytes((row_in - x_begin) * in_width);
      band.shift[1] = Bytes(begin * width);
      band.shift[2] = Bytes((begin - y_begin) * width);
      band.args = step.args;
      if (begin >= end) continue;
      if (steps[k].depthwise != nullptr) {
        DwconvArgs* d = nullptr;
        SRT_RETURN_IF_ERROR(NewArgs(&d));
        *d = *steps[k].depthwise;
        d->pad_h += row_in - begin * d->stride_h;
        d->in_h -= row_in;
        d->out_h = end - begin;
        d->columns = d->out_h * width;
        if (k > 0) d->x_plane = x_stride;
        if (!is_last) d->y_plane = stride;
        band.args = d;
        band.items = DwconvItems(*d);
      } else {
        SpmmArgs* m = nullptr;
        SRT_RETURN_IF_ERROR(NewArgs(&m));
        *m = *steps[k].product;
        m->columns = (end - begin) * width;
        const Tiling tiling = MakeTiling(m->columns, steps[k].lanes, m->tile_vecs, m->tile_vecs);
        m->tiles = tiling.tiles;
        m->vecs = tiling.vecs;
        m->tile_vecs = tiling.tile_vecs;
        if (k > 0) {
          m->x_row = x_stride;
          m->fetch_x = false;
        }
        if (!is_last) {
          m->y_row = stride;
          m->fetch_ahead = false;
        }
        band.args = m;
        band.items = SpmmItems(*m);
      }
    }
    step.bands = {of_bands, bands};
    AddToReason(step.node, "; in turns with its neighbours, %d bands of rows",
                static_cast<int>(bands));
    if (!is_last) {
      buffers_[step.io[2].index].bytes = Bytes(stride * Channels(steps[k])) + 2 * kCacheLine;
    }
    for (int i = 0; i < step.io_count; ++i) {
      if (step.io[i].kind != IoRef::kArena) continue;
      Buffer& buffer = buffers_[step.io[i].index];
      buffer.first = std::min(buffer.first, first_node);
      buffer.last = std::max(buffer.last, last_node);
    }
    if (!is_last && steps[k + 1].depthwise != nullptr) {
      SRT_RETURN_IF_ERROR(AddMove(steps, count, rows, k, moves));
    }
    x_stride = stride;
  }
  const size_t added = moves->size() - moves_before;
  const bool begins = added > 0 && (*moves)[moves_before].before == steps[0].step;
  Step& head = begins ? (*moves)[moves_before].step : plan->steps[steps[0].step];
  head.turns = count + static_cast<int32_t>(added);
  return Status::Ok();
}

Status PlanBuilder::AddMove(const PlaneStep* steps, int count, int64_t rows, int k,
                            Array<MovedRows>* moves) {
  const Turns t = {steps, count, rows};
  const auto bands = static_cast<size_t>(t.bands());
  const int64_t width = OutWidth(steps[k]);
  MovedRows move;
  move.before = steps[k].step;
  const Step& writer = plan->steps[steps[k].step];
  move.step.node = writer.node;
  move.step.io[0] = move.step.io[1] = writer.io[2];
  move.step.io_count = 2;
  auto* of_bands = plan->memory.Allocate<StepBand>(bands);
  if (of_bands == nullptr) return Status::OutOfMemory("bands", bands * sizeof(StepBand));
  for (size_t n = 0; n < bands; ++n) {
    StepBand& band = *new (of_bands + n) StepBand();
    const auto number = static_cast<int64_t>(n);
    const int64_t moved = t.Moved(k, number);
    if (moved == 0) continue;
    const int64_t down = t.HeldBegin(k, number) - t.HeldBegin(k, number - 1);
    TensorDesc desc;
    desc.shape.rank = 2;
    desc.shape.dims[0] = Channels(steps[k]);
    desc.shape.dims[1] = moved * width;
    desc.strides[0] = t.Stride(k);
    desc.strides[1] = 1;
    CopyArgs* args = nullptr;
    SRT_RETURN_IF_ERROR(NewArgs(&args));
    *args = MakeCopyArgs(desc.dtype, desc.shape, desc.strides, desc.strides);
    if (!SelectCopy(*args, options.isa, &move.step.kernel)) {
      return Fail(StatusCode::kInternal, "no copy kernel");
    }
    band.args = args;
    band.items = CopyItems(*args);
    band.shift[0] = Bytes(down * width);
  }
  if (move.step.kernel.run == nullptr) return Status::Ok();
  move.step.bands = {of_bands, bands};
  return moves->push_back(move);
}

// The moves become steps of the nodes whose buffers they prepare.
Status PlanBuilder::InsertMoves(const Array<MovedRows>& moves) {
  if (moves.empty()) return Status::Ok();
  Array<Step> all(plan->steps.allocator());
  size_t next = 0;
  for (size_t s = 0; s < plan->steps.size(); ++s) {
    if (next < moves.size() && moves[next].before == s) {
      SRT_RETURN_IF_ERROR(all.push_back(moves[next++].step));
    }
    SRT_RETURN_IF_ERROR(all.push_back(plan->steps[s]));
  }
  for (NodePlan& node : plan->nodes) {
    uint32_t ahead = 0;
    uint32_t own = 0;
    for (const MovedRows& move : moves) {
      ahead += move.before < node.first_step ? 1 : 0;
      const bool inside =
          move.before >= node.first_step && move.before < node.first_step + node.step_count;
      own += inside ? 1 : 0;
    }
    node.first_step += ahead;
    node.step_count += own;
  }
  plan->steps = std::move(all);
  return Status::Ok();
}

}  // namespace sparsert
