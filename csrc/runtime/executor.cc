// The executor.
#include "runtime/executor.h"

#include <cinttypes>

#include "base/fault.h"
#include "graph/node_view.h"

namespace sparsert {
namespace {

// The threads of one run.
class Team {
 public:
  // `pool`: nullptr for the calling thread alone; else it is acquired if it is free.
  Team(ThreadPool* pool, Budget* budget) : budget_(budget) {
    if (budget_ != nullptr) budget_->Enter();
    if (pool != nullptr && pool->workers() > 0 && pool->Acquire()) pool_ = pool;
  }
  ~Team() {
    if (pool_ != nullptr) pool_->Release();
    if (budget_ != nullptr) budget_->Leave(held_);
  }
  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;

  ThreadPool* pool() const { return pool_; }

  // Takes the workers that there are cores for.
  void Settle() {
    if (pool_ == nullptr || budget_ == nullptr) return;
    held_ = budget_->Settle(held_, pool_->workers());
    pool_->UseWorkers(held_);
  }

 private:
  ThreadPool* pool_ = nullptr;
  Budget* budget_;
  int held_ = 0;  // workers, of the budget
};

struct StepRun {
  const Step* step;
  void* const* io;
  char* scratch;
  size_t scratch_bytes;
};

void RunItems(void* context, int64_t begin, int64_t end, int worker) {
  const StepRun& run = *static_cast<const StepRun*>(context);
  run.step->kernel.run(run.step->args, run.io, begin, end,
                       run.scratch + run.scratch_bytes * static_cast<size_t>(worker));
}

// The first fault of a run and the node that it is of.
struct RunFault {
  IndexFault index;
  uint32_t node = 0;
};

// A run's memory: of one slice, with its arena at `base`.
struct Memory {
  char* passed;
  char* base;
  const void* const* inputs;
  void* const* outputs;
  int64_t slice;
  IndexFault* fault;
};

// Where the step's tensors lie; `shift`: nullptr, or further bytes of each.
void Resolve(const Step& step, const Memory& memory, const size_t* shift, void** io) {
  for (int i = 0; i < step.io_count; ++i) {
    const IoRef& ref = step.io[i];
    size_t offset = ref.offset + static_cast<size_t>(memory.slice) * ref.slice_bytes;
    if (shift != nullptr) offset += shift[i];
    switch (ref.kind) {
      case IoRef::kNone:
        io[i] = nullptr;
        break;
      case IoRef::kArena:
        io[i] = memory.base + offset;
        break;
      case IoRef::kConstant:
        io[i] = const_cast<char*>(static_cast<const char*>(ref.constant)) + offset;
        break;
      case IoRef::kInput:
        io[i] = const_cast<char*>(static_cast<const char*>(memory.inputs[ref.index])) + offset;
        break;
      case IoRef::kOutput:
        io[i] = static_cast<char*>(memory.outputs[ref.index]) + offset;
        break;
      case IoRef::kPassed:
        io[i] = memory.passed + offset;
        break;
      case IoRef::kFault:
        io[i] = memory.fault;
        break;
    }
  }
}

// Steps that take turns, `step` the first of them, on the calling thread.
void RunTurns(const Step* step, const Memory& memory, char* scratch, uint64_t* step_ns,
              uint64_t (*clock)()) {
  for (size_t n = 0; n < step->bands.size; ++n) {
    for (int32_t turn = 0; turn < step->turns; ++turn) {
      const StepBand& band = step[turn].bands[n];
      if (band.items == 0) continue;
      void* io[kMaxStepIo];
      Resolve(step[turn], memory, band.shift, io);
      const uint64_t begin = step_ns != nullptr ? clock() : 0;
      step[turn].kernel.run(band.args, io, 0, band.items, scratch);
      if (step_ns != nullptr) step_ns[turn] += clock() - begin;
    }
  }
}

struct StageRun {
  const Plan* plan;
  const Stage* stage;
  char* arena;
  const void* const* inputs;
  void* const* outputs;
  Team* team;
  RunFault* fault;
  uint64_t* step_ns;  // nullptr, or to be added to
  uint64_t (*clock)();
};

// The stage on one slice of the batch, in the arena of `worker`, up to the first fault. `team`:
// nullptr for the calling thread alone.
void RunSlice(const StageRun& run, int64_t slice, int worker, Team* team, uint64_t* step_ns) {
  const Plan& plan = *run.plan;
  RunFault* fault = run.fault;
  uint64_t (*clock)() = run.clock;
  IndexFault own;
  char* base =
      run.arena + plan.passed_bytes + run.stage->slice_arena_bytes() * static_cast<size_t>(worker);
  const Memory memory = {run.arena, base, run.inputs, run.outputs, slice, &own};
  char* scratch = base + run.stage->tensor_bytes;
  for (size_t s = run.stage->first_step; s < run.stage->end_step; ++s) {
    const Step& step = plan.steps[s];
    if (!step.bands.empty()) {
      RunTurns(&step, memory, scratch, step_ns != nullptr ? step_ns + s : nullptr, clock);
      s += step.turns - 1;
      continue;
    }
    void* io[kMaxStepIo];
    Resolve(step, memory, nullptr, io);
    const uint64_t begin = step_ns != nullptr ? clock() : 0;
    if (team != nullptr && step.chunk < step.items) {
      StepRun shared = {&step, io, scratch, run.stage->scratch_bytes};
      team->Settle();
      team->pool()->Run(&RunItems, &shared, step.items, step.chunk);
    } else if (step.items > 0) {
      step.kernel.run(step.args, io, 0, step.items, scratch);
    }
    if (step_ns != nullptr) step_ns[s] += clock() - begin;
    if (step.may_fault && own.reported) {
      if (fault->index.reported.exchange(true)) return;
      fault->index.index = own.index;
      fault->index.size = own.size;
      fault->index.low = own.low;
      fault->node = step.node;
      return;
    }
  }
}

void RunSlices(void* context, int64_t begin, int64_t end, int worker) {
  const StageRun& run = *static_cast<const StageRun*>(context);
  for (int64_t slice = begin; slice < end; ++slice) {
    if (worker == 0) run.team->Settle();
    RunSlice(run, slice, worker, nullptr, worker == 0 ? run.step_ns : nullptr);
  }
}

void RunStage(StageRun* run) {
  Team* team = run->team->pool() == nullptr ? nullptr : run->team;
  const Stage& stage = *run->stage;
  if (team != nullptr && stage.slice_threads > 1) {
    team->Settle();
    team->pool()->Run(&RunSlices, run, stage.slices, 1);
    return;
  }
  for (int64_t slice = 0; slice < stage.slices && !run->fault->index.reported; ++slice) {
    RunSlice(*run, slice, 0, team, run->step_ns);
  }
}

Status DescribeFault(const Graph& graph, const RunFault& fault) {
  if (!fault.index.reported) return Status::Ok();
  const Node& node = graph.nodes[fault.node];
  const uint32_t indices = node.Input(node.op == Op::kRoiAlign ? 2 : 1);
  return NodeError(node, StatusCode::kInvalidArgument,
                   "index %" PRId64 " of '%s' is outside of [%" PRId64 ", %" PRId64 ")",
                   fault.index.index, NameText(graph.tensors[indices].name).text, fault.index.low,
                   fault.index.size);
}

}  // namespace

Status RunPlan(const Graph& graph, const Plan& plan, void* arena, const void* const* inputs,
               void* const* outputs, ThreadPool* pool, Budget* budget, uint64_t* step_ns,
               uint64_t (*clock)()) {
  RunFault fault;
  bool shares = false;
  for (const Stage& stage : plan.stages) shares |= stage.threads > 1 || stage.slice_threads > 1;
  Team team(shares ? pool : nullptr, budget);
  for (size_t s = 0; step_ns != nullptr && s < plan.steps.size(); ++s) step_ns[s] = 0;
  StageRun run = {&plan,   nullptr, static_cast<char*>(arena), inputs, outputs, &team, &fault,
                  step_ns, clock};
  for (size_t p = 0; p < plan.stages.size() && !fault.index.reported; ++p) {
    run.stage = &plan.stages[p];
    RunStage(&run);
  }
  return DescribeFault(graph, fault);
}

}  // namespace sparsert
