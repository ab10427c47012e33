// The executor.
#include "runtime/executor.h"

namespace sparsert {
namespace {

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

}  // namespace

void RunPlan(const Plan& plan, void* arena, const void* const* inputs, void* const* outputs,
             ThreadPool* pool, uint64_t* step_ns, uint64_t (*clock)()) {
  char* base = static_cast<char*>(arena);
  const bool parallel =
      pool != nullptr && pool->threads() > 1 && plan.threads > 1 && pool->Acquire();
  for (size_t s = 0; s < plan.steps.size(); ++s) {
    const Step& step = plan.steps[s];
    void* io[kMaxStepIo];
    for (int i = 0; i < step.io_count; ++i) {
      const IoRef& ref = step.io[i];
      switch (ref.kind) {
        case IoRef::kNone:
          io[i] = nullptr;
          break;
        case IoRef::kArena:
          io[i] = base + ref.offset;
          break;
        case IoRef::kConstant:
          io[i] = const_cast<char*>(static_cast<const char*>(ref.constant)) + ref.offset;
          break;
        case IoRef::kInput:
          io[i] = const_cast<char*>(static_cast<const char*>(inputs[ref.index])) + ref.offset;
          break;
        case IoRef::kOutput:
          io[i] = static_cast<char*>(outputs[ref.index]) + ref.offset;
          break;
      }
    }
    const uint64_t begin = step_ns != nullptr ? clock() : 0;
    char* scratch = base + plan.tensor_bytes;
    if (parallel && step.chunk < step.items) {
      StepRun run = {&step, io, scratch, plan.scratch_bytes};
      pool->Run(&RunItems, &run, step.items, step.chunk);
    } else if (step.items > 0) {
      step.kernel.run(step.args, io, 0, step.items, scratch);
    }
    if (step_ns != nullptr) step_ns[s] = clock() - begin;
  }
  if (parallel) pool->Release();
}

}  // namespace sparsert
