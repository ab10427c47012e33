// MakePlan: one stage for the whole batch, or stages that run it some images at a time.
#include <utility>

#include "plan/batch_slices.h"
#include "plan/builder.h"
#include "plan/check_memory.h"

namespace sparsert {
namespace {

// Shapes of a stage's tensors into `slice`; *agrees: they are those of the whole but for the batch.
Status InferSlice(const Graph& graph, Span<Shape> input_shapes, const ShapeTable& whole,
                  int64_t images, int64_t slice_images, ShapeTable* slice, bool* agrees) {
  Array<Shape> shapes(whole.facts.allocator());
  SRT_RETURN_IF_ERROR(shapes.append(input_shapes.data, input_shapes.size));
  for (Shape& shape : shapes) shape.dims[0] = slice_images;
  // A graph that names the size of its batch inside fails here, or disagrees.
  *agrees = InferShapes(graph, shapes.span(), slice, false).ok() &&
            SlicesAgree(graph, whole, *slice, images, slice_images);
  return Status::Ok();
}

// The nodes of a stage as a graph of their own, whose tensors have the same indices, and a plan for
// it. What it passes on is an output of this graph, and an input of the next one.
class StageBuilder {
 public:
  // `facts`: of the whole batch.
  StageBuilder(const Graph& whole, const BatchStage& stage, const ShapeTable& facts)
      : whole_(whole),
        stage_(stage),
        facts_(facts),
        graph_(facts.facts.allocator()),
        inputs_(facts.facts.allocator()),
        outputs_(facts.facts.allocator()),
        part_(facts.facts.allocator()) {}

  // Appends the stage to `plan`. `tune_ns`: what it may spend on measuring; gets what it did not.
  Status Build(const PlanOptions& options, Span<uint8_t> tuning, ShapeTable* slice,
               Weights* weights, Plan* plan, double* tune_ns) {
    SRT_RETURN_IF_ERROR(MakeGraph());
    SRT_RETURN_IF_ERROR(CheckTensorBytes(graph_, *slice, options.memory_limit));
    for (uint32_t t : outputs_) {
      if (IndexIn(whole_.outputs, t) < 0) plan->passed_bytes = PassedBytes(t);
    }
    std::swap(part_.facts, *slice);
    part_.memory.LimitTo(options.memory_limit);
    part_.memory.Take(&plan->memory);  // that of all stages counts
    PlanOptions own = options;
    if (stage_.slice_per_thread) own.threads = 1;
    PlanBuilder builder(graph_, own, weights, &part_);
    builder.tuning.Open(tuning, plan->tuning_fingerprint, whole_.nodes.size());
    builder.tuning_node = stage_.first_node;
    builder.tune_ns_left = *tune_ns;
    SRT_RETURN_IF_ERROR(builder.Build());
    *tune_ns = builder.tune_ns_left;
    if (stage_.first_node != 0) {
      builder.AddToReason(0, "; now %d images at a time", static_cast<int>(stage_.slice_images));
    }
    Stage& made = part_.stages[0];
    made.slices = stage_.slices;
    made.slice_images = stage_.slice_images;
    if (stage_.slice_per_thread) made.slice_threads = options.threads;
    for (Step& step : part_.steps) Relocate(&step);
    return Append(plan);
  }

 private:
  Status MakeGraph() {
    enum : uint32_t { kUsed = 1, kMade = 2, kReadLater = 4 };
    const auto tensors = static_cast<uint32_t>(whole_.tensors.size());
    const auto nodes = static_cast<uint32_t>(whole_.nodes.size());
    Array<uint32_t> marks(facts_.facts.allocator());
    SRT_RETURN_IF_ERROR(marks.resize(tensors));
    for (uint32_t n = 0; n < nodes; ++n) {
      const bool is_own = n >= stage_.first_node && n < stage_.end_node;
      for (uint32_t t : whole_.nodes[n].inputs) {
        if (t == kNoTensor) continue;
        if (is_own) marks[t] |= kUsed;
        if (n >= stage_.end_node) marks[t] |= kReadLater;
      }
      for (uint32_t t : whole_.nodes[n].outputs) {
        if (t != kNoTensor && is_own) marks[t] |= kUsed | kMade;
      }
    }
    SRT_RETURN_IF_ERROR(graph_.tensors.append(whole_.tensors.data(), tensors));
    SRT_RETURN_IF_ERROR(
        graph_.nodes.append(&whole_.nodes[stage_.first_node], stage_.end_node - stage_.first_node));
    SRT_RETURN_IF_ERROR(inputs_.reserve(tensors));
    SRT_RETURN_IF_ERROR(outputs_.reserve(tensors + whole_.outputs.size));
    for (uint32_t t : whole_.outputs) {
      // What no node computes is left to the last stage.
      const bool is_left =
          stage_.end_node == nodes && (IsKnown(t) || IndexIn(whole_.inputs, t) >= 0);
      if ((marks[t] & kMade) == 0 && !is_left) continue;
      marks[t] |= kUsed;
      outputs_.push_unchecked(t);
    }
    for (uint32_t t = 0; t < tensors; ++t) {
      if ((marks[t] & kUsed) == 0) {
        graph_.tensors[t] = Tensor();
      } else if (!IsKnown(t) && (marks[t] & kMade) == 0) {
        inputs_.push_unchecked(t);
      } else if (!IsKnown(t) && (marks[t] & kReadLater) != 0 && IndexIn(whole_.outputs, t) < 0) {
        outputs_.push_unchecked(t);
      }
    }
    graph_.inputs = inputs_.span();
    graph_.outputs = outputs_.span();
    return Status::Ok();
  }

  bool IsKnown(uint32_t t) const {
    return whole_.tensors[t].is_constant || facts_.facts[t].is_known;
  }

  static int64_t IndexIn(Span<uint32_t> tensors, uint32_t t) {
    for (size_t i = 0; i < tensors.size; ++i) {
      if (tensors[i] == t) return static_cast<int64_t>(i);
    }
    return -1;
  }

  // Memory for the one tensor that is passed on.
  size_t PassedBytes(uint32_t t) const {
    return (BytesOf(facts_, t) + 2 * kCacheLine - 1) / kCacheLine * kCacheLine;
  }

  static size_t BytesOf(const ShapeTable& facts, uint32_t t) {
    const TensorFacts& f = facts.facts[t];
    return static_cast<size_t>(f.shape.elements()) * DTypeSize(f.dtype);
  }

  // From inputs and outputs of this graph to those of the whole one.
  void Relocate(Step* step) const {
    for (int i = 0; i < step->io_count; ++i) {
      IoRef& ref = step->io[i];
      if (ref.kind != IoRef::kInput && ref.kind != IoRef::kOutput) continue;
      const bool is_input = ref.kind == IoRef::kInput;
      const uint32_t t = is_input ? inputs_[ref.index] : outputs_[ref.index];
      ref.slice_bytes = BytesOf(part_.facts, t);
      const int64_t output = is_input ? IndexIn(whole_.outputs, t) : OutputOf(ref.index);
      const int64_t input = is_input ? IndexIn(whole_.inputs, t) : -1;
      if (input >= 0) {
        ref.index = static_cast<uint32_t>(input);
      } else if (output >= 0) {
        ref.kind = IoRef::kOutput;
        ref.index = static_cast<uint32_t>(output);
      } else {
        ref.kind = IoRef::kPassed;
      }
    }
  }

  // Which output of the whole graph the index-th of this one is; -1: none. A tensor may be several.
  int64_t OutputOf(uint32_t index) const {
    const uint32_t t = outputs_[index];
    size_t before = 0;
    for (uint32_t i = 0; i < index; ++i) before += outputs_[i] == t;
    for (size_t i = 0; i < whole_.outputs.size; ++i) {
      if (whole_.outputs[i] == t && before-- == 0) return static_cast<int64_t>(i);
    }
    return -1;
  }

  Status Append(Plan* plan) {
    const auto steps = static_cast<uint32_t>(plan->steps.size());
    const auto candidates = static_cast<uint32_t>(plan->candidates.size());
    for (Step& step : part_.steps) {
      step.node += stage_.first_node;
      SRT_RETURN_IF_ERROR(plan->steps.push_back(step));
    }
    for (const Candidate& candidate : part_.candidates) {
      SRT_RETURN_IF_ERROR(plan->candidates.push_back(candidate));
    }
    SRT_RETURN_IF_ERROR(plan->nodes.resize(stage_.end_node));
    for (size_t n = 0; n < graph_.nodes.size(); ++n) {
      NodePlan& node = plan->nodes[stage_.first_node + n];
      node = part_.nodes[n];
      node.first_step += steps;
      node.first_candidate += candidates;
    }
    Stage made = part_.stages[0];
    made.first_step = steps;
    made.end_step = static_cast<uint32_t>(plan->steps.size());
    plan->memory.Take(&part_.memory);
    return plan->stages.push_back(made);
  }

  const Graph& whole_;
  const BatchStage& stage_;
  const ShapeTable& facts_;
  Graph graph_;
  Array<uint32_t> inputs_;   // tensors
  Array<uint32_t> outputs_;  // those of the whole graph first, in its order
  Plan part_;
};

// The stages of `cut`; *agrees is false if the shapes inside do not follow the batch.
Status BuildStages(const Graph& graph, Span<Shape> input_shapes, const PlanOptions& options,
                   Span<uint8_t> tuning, const BatchSlices& cut, Weights* weights, Plan* plan,
                   bool* agrees) {
  const Allocator* allocator = plan->steps.allocator();
  ShapeTable slices[2] = {ShapeTable(allocator), ShapeTable(allocator)};
  *agrees = true;
  for (int p = 0; p < cut.stage_count && *agrees; ++p) {
    SRT_RETURN_IF_ERROR(InferSlice(graph, input_shapes, plan->facts, cut.images,
                                   cut.stages[p].slice_images, &slices[p], agrees));
  }
  if (!*agrees) return Status::Ok();
  SRT_RETURN_IF_ERROR(CheckOutputBytes(graph, plan->facts, options.memory_limit));
  double tune_ns = 0.0;
  for (int p = 0; p < cut.stage_count; ++p) {
    StageBuilder stage(graph, cut.stages[p], plan->facts);
    tune_ns += kTuneNs / cut.stage_count;  // and what the one before has left
    SRT_RETURN_IF_ERROR(stage.Build(options, tuning, &slices[p], weights, plan, &tune_ns));
  }
  return Status::Ok();
}

}  // namespace

Status MakePlan(const Graph& graph, Span<Shape> input_shapes, Span<const void*> input_values,
                const PlanOptions& options, Span<uint8_t> tuning, Weights* weights, Plan* plan) {
  SRT_RETURN_IF_ERROR(
      InferShapes(graph, input_shapes, &plan->facts, true, input_values, options.allow_empty));
  plan->memory.LimitTo(options.memory_limit);
  weights->LimitTo(options.memory_limit);
  plan->tuning_fingerprint = TuningFingerprint(graph, input_shapes, options);
  BatchSlices cut;
  SRT_RETURN_IF_ERROR(
      ChooseBatchSlices(graph, plan->facts, options.threads, options.memory_limit, weights, &cut));
  Status status;
  bool is_cut = cut.images != 0;
  if (is_cut) {
    status = BuildStages(graph, input_shapes, options, tuning, cut, weights, plan, &is_cut);
  }
  if (!is_cut) {
    SRT_RETURN_IF_ERROR(CheckTensorBytes(graph, plan->facts, options.memory_limit));
    PlanBuilder builder(graph, options, weights, plan);
    builder.tuning.Open(tuning, plan->tuning_fingerprint, graph.nodes.size());
    status = builder.Build();
  }
  weights->EndPlanning();
  return status.ok() ? CheckArenaBytes(*plan, options.memory_limit) : status;
}

}  // namespace sparsert
