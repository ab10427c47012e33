// Plan: a graph made ready to run for one set of input shapes on this machine.
#pragma once

#include "base/bump.h"
#include "graph/infer_shapes.h"
#include "kernels/kernel.h"
#include "plan/candidate.h"
#include "plan/weights.h"

namespace sparsert {

enum class Tune : uint8_t { kOff = 0, kAuto = 1, kFull = 2 };

struct PlanOptions {
  Isa isa = Isa::kScalar;
  CpuTraits cpu;
  int threads = 1;
  Tune tune = Tune::kAuto;
  int format = -1;           // kAnyFormat, kWinogradFormat, or the SpmmFormat of every matrix layer
  bool allow_empty = false;  // inputs may have dimensions of size 0
  uint64_t memory_limit = 0;  // bytes of one tensor, a plan, a run's arena; 0: none
  // Wall clock for measured choices in nanoseconds; nullptr turns them off.
  uint64_t (*clock)() = nullptr;
};

// Where a step finds a tensor when it runs.
struct IoRef {
  // kPassed: what one stage passes on to the next. kFault: where a kernel reports indices that are
  // outside (base/fault.h).
  enum Kind : uint8_t { kNone, kArena, kConstant, kInput, kOutput, kPassed, kFault };
  Kind kind = kNone;
  uint32_t index = 0;  // of the graph input or output
  // Bytes from the start of the arena, constant, input, output or what is passed on.
  size_t offset = 0;
  const void* constant = nullptr;  // kConstant
  // kInput, kOutput, kPassed: bytes from one slice of the batch to the next.
  size_t slice_bytes = 0;
};

inline IoRef FaultRef() {
  IoRef ref;
  ref.kind = IoRef::kFault;
  return ref;
}

// Wraps around for negative shifts, which is what adding them needs.
inline IoRef Shifted(IoRef ref, int64_t elements, DType dtype) {
  ref.offset += static_cast<size_t>(elements) * DTypeSize(dtype);
  return ref;
}

constexpr int kMaxStepIo = 8;

// What a step does in one band of rows of its planes.
struct StepBand {
  const void* args = nullptr;
  int64_t items = 0;
  size_t shift[kMaxStepIo] = {};  // bytes further on than the step's io
};

struct Step {
  Kernel kernel;
  const void* args = nullptr;
  uint32_t node = 0;
  IoRef io[kMaxStepIo];
  int32_t io_count = 0;
  bool may_fault = false;  // one of io is kFault
  int64_t items = 0;
  int64_t chunk = 1;         // items a thread takes at a time
  size_t scratch_bytes = 0;  // per thread
  // Steps that take turns, band by band, so that what they pass on stays in cache: the first one's
  // `turns` says how many they are. All have as many bands.
  int32_t turns = 1;
  Span<StepBand> bands;  // empty: the step runs once
};

// What explain() says of a node.
struct NodePlan {
  uint32_t first_step = 0;
  uint32_t step_count = 0;
  uint64_t weights = 0;  // elements of the weight tensor, 0 without one
  uint64_t nonzeros = 0;
  uint64_t storage_bytes = 0;  // in the file
  uint64_t packed_bytes = 0;   // in memory
  const char* storage_format = "";
  const char* compute_format = "";
  const char* kernel = "";
  Isa isa = Isa::kScalar;
  double predicted_ns = 0.0;  // of the chosen kernel; 0 when no choice was made
  double measured_ns = 0.0;   // at plan time; 0 when not measured
  uint32_t first_candidate = 0;
  uint32_t candidate_count = 0;  // the chosen one first, the others by predicted time
  char reason[200] = "";
};

struct TensorPlace {
  IoRef ref;
  TensorDesc desc;
  bool placed = false;
};

// Steps that run one after the other on a slice of the batch, then on the next one.
struct Stage {
  uint32_t first_step = 0;
  uint32_t end_step = 0;
  size_t tensor_bytes = 0;   // arena: tensors, then scratch of every thread
  size_t scratch_bytes = 0;  // of one thread
  int threads = 1;           // that share a step
  // The steps run `slices` times, each time on the next images of the batch, on one after the other
  // of `slice_threads` arenas.
  int32_t slices = 1;
  int64_t slice_images = 0;  // 0: the batch is not cut
  int slice_threads = 1;

  size_t slice_arena_bytes() const { return tensor_bytes + scratch_bytes * threads; }
  size_t arena_bytes() const { return slice_arena_bytes() * slice_threads; }
};

struct Plan {
  explicit Plan(const Allocator* allocator)
      : memory(allocator),
        steps(allocator),
        nodes(allocator),
        candidates(allocator),
        stages(allocator),
        facts(allocator),
        places(allocator) {}

  Bump memory;  // args, tap tables, known constants
  Array<Step> steps;
  Array<NodePlan> nodes;  // [graph.nodes]
  Array<Candidate> candidates;
  Array<Stage> stages;        // one after the other
  ShapeTable facts;           // of the whole batch
  Array<TensorPlace> places;  // [graph.tensors], of one slice of it; while the plan is made
  size_t passed_bytes = 0;    // arena: what stages pass on, then what the largest stage needs
  uint64_t tuning_fingerprint = 0;

  Span<Candidate> CandidatesOf(size_t node) const {
    return {candidates.data() + nodes[node].first_candidate, nodes[node].candidate_count};
  }

  size_t arena_bytes() const {
    size_t largest = 0;
    for (const Stage& stage : stages) {
      if (stage.arena_bytes() > largest) largest = stage.arena_bytes();
    }
    return passed_bytes + largest;
  }
  // Of the plan itself.
  size_t plan_bytes() const {
    return memory.bytes() + steps.size_bytes() + nodes.size_bytes() + candidates.size_bytes() +
           stages.size_bytes() + facts.facts.size_bytes() + places.size_bytes();
  }
};

// `plan` is empty. `tuning`: empty, or what WriteTuning() wrote for an earlier plan; it is not
// trusted. `input_values`: as in InferShapes(); the plan is for these values only. Errors name the
// node. kOutOfMemory when a tensor, the decoded constants, the plan or the arena is beyond the
// limit, before anything of that size is asked for.
Status MakePlan(const Graph& graph, Span<Shape> input_shapes, Span<const void*> input_values,
                const PlanOptions& options, Span<uint8_t> tuning, Weights* weights, Plan* plan);

}  // namespace sparsert
