// The C interface over model, plan and executor.
#include <cstdio>
#include <cstdlib>
#include <new>

#include "base/usable_cores.h"
#include "capi/checks.h"
#include "graph/plan_inputs.h"
#include "modelfile/reader.h"
#include "plan/choose_spmm.h"
#include "plan/tuning.h"
#include "runtime/executor.h"

using sparsert::Allocator;
using sparsert::CheckOptions;
using sparsert::CheckRun;
using sparsert::CheckValues;
using sparsert::kNoTensor;
using sparsert::MutexLock;
using sparsert::Node;
using sparsert::NullArgument;
using sparsert::Shape;
using sparsert::Status;
using sparsert::StatusCode;
using sparsert::TensorBytes;
using sparsert::ThreadPool;

namespace {

constexpr int kMaxThreads = 1024;

// Of this interface alone: the core opens no files.
constexpr auto kFileCode = static_cast<StatusCode>(SRT_FILE);

// Smaller files take longer to read again than their memory is worth.
constexpr size_t kForgetBytes = 16 << 20;

static_assert(SRT_MAX_RANK == sparsert::kMaxRank, "the C header repeats the core's rank limit");

Allocator ToAllocator(const srt_allocator* allocator) {
  if (allocator == nullptr) return *sparsert::DefaultAllocator();
  return {allocator->allocate, allocator->release, allocator->context};
}

int32_t TensorInfo(const srt_model* model, uint32_t tensor, srt_tensor_info* info) {
  const sparsert::Tensor& t = model->graph.tensors[tensor];
  info->name = t.name.data;
  info->name_bytes = t.name.size;
  info->dtype = static_cast<int32_t>(t.dtype);
  info->shape = srt_shape();
  info->shape.rank = t.rank == sparsert::kUnknownRank ? -1 : t.rank;
  for (int d = 0; d < info->shape.rank; ++d) info->shape.dims[d] = t.dims[d];
  return SRT_OK;
}

srt_shape ToC(const Shape& shape) {
  srt_shape c = srt_shape();
  c.rank = shape.rank;
  for (int d = 0; d < shape.rank; ++d) c.dims[d] = shape.dims[d];
  return c;
}

// `text`: nullptr, or a number of bytes.
Status MemoryLimit(const char* text, uint64_t* limit) {
  *limit = sparsert::PhysicalBytes();
  if (text == nullptr || text[0] == '\0') return Status::Ok();
  char* end = nullptr;
  const long long value = strtoll(text, &end, 10);
  if (*end != '\0' || value < 1) {
    return Status::Error(StatusCode::kInvalidArgument,
                         "SPARSERT_MEMORY_LIMIT is '%s', expected a number of bytes", text);
  }
  *limit = static_cast<uint64_t>(value);
  return Status::Ok();
}

Status Load(const void* bytes, size_t size, const srt_options& o, srt_model* model) {
  if (bytes == nullptr) return NullArgument("bytes");
  if (o.threads < 0 || o.threads > kMaxThreads) {
    return Status::Error(StatusCode::kInvalidArgument, "threads is %d, expected 0 to %d", o.threads,
                         kMaxThreads);
  }
  if (o.tune < SRT_TUNE_OFF || o.tune > SRT_TUNE_FULL) {
    return Status::Error(StatusCode::kInvalidArgument, "tune is %d, expected 0, 1 or 2", o.tune);
  }
  SRT_RETURN_IF_ERROR(sparsert::ChooseIsa(o.isa, &model->options.isa));
  model->options.cpu = sparsert::DetectCpu(model->options.isa);
  SRT_RETURN_IF_ERROR(
      sparsert::FormatFromName(sparsert::Environment("SPARSERT_FORMAT"), &model->options.format));
  SRT_RETURN_IF_ERROR(
      MemoryLimit(sparsert::Environment("SPARSERT_MEMORY_LIMIT"), &model->options.memory_limit));
  const bool forget = o.is_mapped != 0 && size >= kForgetBytes;
  SRT_RETURN_IF_ERROR(sparsert::ReadModel(bytes, size, &model->allocator, &model->graph, forget));
  SRT_RETURN_IF_ERROR(sparsert::FindPlanInputs(model->graph, &model->plan_inputs));
  model->options.threads = o.threads == 0 ? sparsert::UsableCores() : o.threads;
  model->options.tune = static_cast<sparsert::Tune>(o.tune);
  model->options.allow_empty = o.allow_empty != 0;
  model->options.clock = sparsert::HasClock() ? &sparsert::ClockNs : nullptr;
  if (o.is_mapped != 0) model->weights.SetMappedFile(bytes, size);
  const sparsert::Array<sparsert::Level>& levels = model->graph.levels;
  SRT_RETURN_IF_ERROR(model->levels.resize(levels.size()));
  if (!levels.empty()) SRT_RETURN_IF_ERROR(model->own.resize(model->graph.tensors.size()));
  for (size_t p = 0; !levels.empty() && p < levels[0].patches.size; ++p) {
    model->own[levels[0].patches[p].tensor] = true;
  }
  model->budget = o.budget == nullptr ? nullptr : &o.budget->budget;
  if (model->options.threads > 1) {
    SRT_RETURN_IF_ERROR(
        ThreadPool::Create(model->options.threads, model->budget, &model->allocator, &model->pool));
    model->options.threads = model->pool->threads();
  }
  return Status::Ok();
}

// `path`: nullptr for the `bytes`.
Status LoadFrom(const char* path, const void* bytes, size_t size, const srt_options* options,
                srt_model** model) {
  const srt_options defaults = SRT_OPTIONS_INIT;
  srt_options o = options == nullptr ? defaults : *options;
  SRT_RETURN_IF_ERROR(CheckOptions(o));
  const Allocator allocator = ToAllocator(o.allocator);
  srt_model* made = Make<srt_model>(allocator, allocator);
  if (made == nullptr) return Status::OutOfMemory("model", sizeof(srt_model));
  Status status;
  if (path != nullptr) {
    const char* reason = made->file.Open(path);
    if (reason != nullptr) status = Status::Error(kFileCode, "%s: %s", path, reason);
    bytes = made->file.data();
    size = made->file.size();
    o.is_mapped = 1;
  }
  if (status.ok()) {
    status = Load(bytes, size, o, made);
    if (path != nullptr && status.code() == StatusCode::kModelFormat) {
      const Status cause = status;
      status = Status::Error(cause.code(), "%s: %s", path, cause.text());
    }
  }
  if (!status.ok()) {
    Unmake(allocator, made);
    return status;
  }
  *model = made;
  return Status::Ok();
}

Status MakePlan(srt_model* model, const srt_shape* shapes, int32_t count, const void* const* values,
                const size_t* value_bytes, const void* tuning, size_t tuning_bytes,
                srt_plan** plan) {
  const size_t inputs = model->graph.inputs.size;
  if (count < 0 || static_cast<size_t>(count) != inputs) {
    return Status::Error(StatusCode::kInvalidArgument, "%d shapes, the model has %zu inputs", count,
                         inputs);
  }
  if (shapes == nullptr && inputs != 0) return NullArgument("shapes");
  sparsert::Array<Shape> concrete(&model->allocator);
  SRT_RETURN_IF_ERROR(concrete.resize(inputs));
  for (size_t i = 0; i < inputs; ++i) {
    if (shapes[i].rank < 0 || shapes[i].rank > SRT_MAX_RANK) {
      return Status::Error(StatusCode::kShape, "input %zu has rank %d", i, shapes[i].rank);
    }
    concrete[i].rank = shapes[i].rank;
    for (int d = 0; d < shapes[i].rank; ++d) concrete[i].dims[d] = shapes[i].dims[d];
  }
  if (values != nullptr) {
    SRT_RETURN_IF_ERROR(CheckValues(model, concrete.span(), values, value_bytes));
  }
  srt_plan* made = Make<srt_plan>(model->allocator, model);
  if (made == nullptr) return Status::OutOfMemory("plan", sizeof(srt_plan));
  Status status;
  {
    MutexLock lock(&model->planning);
    const sparsert::Span<uint8_t> blob = {static_cast<const uint8_t*>(tuning),
                                          tuning == nullptr ? 0 : tuning_bytes};
    const sparsert::Span<const void*> known = {values, values == nullptr ? 0 : inputs};
    if (model->levels.empty()) {
      status = sparsert::MakePlan(model->graph, concrete.span(), known, model->options, blob,
                                  &model->weights, &made->plan);
    } else {
      srt_level* level = nullptr;
      status = UseLevel(model, static_cast<size_t>(model->level), &level);
      if (status.ok()) {
        status = sparsert::MakePlan(level->graph, concrete.span(), known, model->options, blob,
                                    &level->weights, &made->plan);
      }
      if (status.ok()) {
        made->level = level;
        ++level->plans;
      }
    }
  }
  if (!status.ok()) {
    Unmake(model->allocator, made);
    return status;
  }
  *plan = made;
  return Status::Ok();
}

// The tensor `index` of a side, or kNoTensor.
uint32_t TensorAt(sparsert::Span<uint32_t> tensors, int32_t index) {
  if (index < 0 || static_cast<size_t>(index) >= tensors.size) return kNoTensor;
  return tensors[static_cast<size_t>(index)];
}

int32_t PlanShape(const srt_plan* plan, uint32_t tensor, srt_shape* shape) {
  if (tensor == kNoTensor) return SRT_INVALID_ARGUMENT;
  *shape = ToC(plan->plan.facts.facts[tensor].shape);
  return SRT_OK;
}

int32_t PlanBytes(const srt_plan* plan, uint32_t tensor, size_t* bytes) {
  if (tensor == kNoTensor) return SRT_INVALID_ARGUMENT;
  *bytes = TensorBytes(plan, tensor);
  return SRT_OK;
}

}  // namespace

srt_model::~srt_model() {
  for (size_t i = 0; i < levels.size(); ++i) FreeLevel(this, i);
  ThreadPool::Destroy(pool);
}

extern "C" {

int32_t srt_abi_version(void) { return SRT_ABI_VERSION; }

const char* srt_version(void) { return SPARSERT_VERSION; }

const char* srt_status_text(int32_t code) {
  switch (code) {
    case SRT_OK:
      return "ok";
    case SRT_INVALID_ARGUMENT:
      return "invalid argument";
    case SRT_MODEL_FORMAT:
      return "not a valid .sprt file";
    case SRT_SHAPE:
      return "shapes that contradict each other or the model";
    case SRT_UNSUPPORTED:
      return "not supported by this build or machine";
    case SRT_OUT_OF_MEMORY:
      return "out of memory";
    case SRT_INTERNAL:
      return "internal error";
    case SRT_FILE:
      return "the file cannot be read";
    default:
      return "unknown status code";
  }
}

size_t srt_dtype_bytes(int32_t dtype) {
  return dtype < 0 || dtype > UINT8_MAX ? 0
                                        : sparsert::DTypeSize(static_cast<sparsert::DType>(dtype));
}

const char* srt_isa_name(int32_t index) {
  for (int i = 0; i < static_cast<int>(sparsert::Isa::kCount); ++i) {
    const auto isa = static_cast<sparsert::Isa>(i);
    if (sparsert::IsaAvailable(isa) && index-- == 0) return sparsert::IsaName(isa);
  }
  return nullptr;
}

int32_t srt_usable_cores(void) { return sparsert::UsableCores(); }

int32_t srt_budget_make(int32_t cores, const srt_allocator* allocator, srt_budget** budget,
                        srt_error* error) {
  *budget = nullptr;
  if (cores < 0) {
    return Report(Status::Error(StatusCode::kInvalidArgument,
                                "the budget is %d cores, expected 0 or more", cores),
                  error);
  }
  const Allocator memory = ToAllocator(allocator);
  *budget = Make<srt_budget>(memory, memory, cores == 0 ? sparsert::UsableCores() : cores);
  if (*budget == nullptr) return Report(Status::OutOfMemory("budget", sizeof(srt_budget)), error);
  return SRT_OK;
}

void srt_budget_free(srt_budget* budget) {
  if (budget == nullptr) return;
  const Allocator allocator = budget->allocator;
  Unmake(allocator, budget);
}

int32_t srt_budget_cores(const srt_budget* budget) { return budget->budget.cores(); }

void srt_budget_set_cores(srt_budget* budget, int32_t cores) {
  budget->budget.set_cores(cores < 1 ? 1 : cores);
}

int32_t srt_budget_busy(const srt_budget* budget) { return budget->budget.busy(); }

int32_t srt_budget_peak(const srt_budget* budget) { return budget->budget.peak(); }

void srt_budget_after_fork(srt_budget* budget) { budget->budget.Reset(); }

int32_t srt_model_load(const void* bytes, size_t size, const srt_options* options,
                       srt_model** model, srt_error* error) {
  if (model == nullptr) return Report(NullArgument("model"), error);
  *model = nullptr;
  return Report(LoadFrom(nullptr, bytes, size, options, model), error);
}

int32_t srt_model_load_file(const char* path, const srt_options* options, srt_model** model,
                            srt_error* error) {
  if (model == nullptr) return Report(NullArgument("model"), error);
  *model = nullptr;
  if (path == nullptr) return Report(NullArgument("path"), error);
  return Report(LoadFrom(path, nullptr, 0, options, model), error);
}

void srt_model_free(srt_model* model) {
  if (model == nullptr) return;
  const Allocator allocator = model->allocator;
  Unmake(allocator, model);
}

int32_t srt_model_input_count(const srt_model* model) {
  return static_cast<int32_t>(model->graph.inputs.size);
}

int32_t srt_model_output_count(const srt_model* model) {
  return static_cast<int32_t>(model->graph.outputs.size);
}

int32_t srt_model_input(const srt_model* model, int32_t index, srt_tensor_info* info) {
  if (index < 0 || index >= srt_model_input_count(model)) return SRT_INVALID_ARGUMENT;
  return TensorInfo(model, model->graph.inputs[index], info);
}

int32_t srt_model_output(const srt_model* model, int32_t index, srt_tensor_info* info) {
  if (index < 0 || index >= srt_model_output_count(model)) return SRT_INVALID_ARGUMENT;
  return TensorInfo(model, model->graph.outputs[index], info);
}

int32_t srt_model_needs_value(const srt_model* model, int32_t index) {
  if (index < 0 || index >= srt_model_input_count(model)) return 0;
  return model->plan_inputs[index] ? 1 : 0;
}

int32_t srt_model_symbol(const srt_model* model, int32_t symbol, const char** name,
                         size_t* name_bytes) {
  if (symbol < 0 || static_cast<size_t>(symbol) >= model->graph.symbols.size()) {
    return SRT_INVALID_ARGUMENT;
  }
  *name = model->graph.symbols[symbol].data;
  *name_bytes = model->graph.symbols[symbol].size;
  return SRT_OK;
}

const char* srt_model_isa(const srt_model* model) { return sparsert::IsaName(model->options.isa); }

int32_t srt_model_threads(const srt_model* model) { return model->options.threads; }

uint64_t srt_model_weight_bytes(const srt_model* model) {
  auto* m = const_cast<srt_model*>(model);
  MutexLock lock(&m->planning);
  uint64_t bytes = m->weights.resident_bytes();
  for (const srt_level* level : m->levels) bytes += level == nullptr ? 0 : PackedBytes(*level);
  return bytes;
}

int32_t srt_model_after_fork(srt_model* model, srt_error* error) {
  // The old pool's threads do not exist here; joining them would wait for ever. Its memory is left.
  model->pool = nullptr;
  new (&model->planning) sparsert::Mutex();
  if (model->options.threads <= 1) return SRT_OK;
  return Report(
      ThreadPool::Create(model->options.threads, model->budget, &model->allocator, &model->pool),
      error);
}

int32_t srt_plan_make(srt_model* model, const srt_shape* shapes, int32_t count, srt_plan** plan,
                      srt_error* error) {
  return srt_plan_make_tuned(model, shapes, count, nullptr, 0, plan, error);
}

int32_t srt_plan_make_tuned(srt_model* model, const srt_shape* shapes, int32_t count,
                            const void* tuning, size_t tuning_bytes, srt_plan** plan,
                            srt_error* error) {
  return srt_plan_make_valued(model, shapes, count, nullptr, nullptr, tuning, tuning_bytes, plan,
                              error);
}

int32_t srt_plan_make_valued(srt_model* model, const srt_shape* shapes, int32_t count,
                             const void* const* values, const size_t* value_bytes,
                             const void* tuning, size_t tuning_bytes, srt_plan** plan,
                             srt_error* error) {
  if (plan == nullptr) return Report(NullArgument("plan"), error);
  *plan = nullptr;
  if (model == nullptr) return Report(NullArgument("model"), error);
  return Report(MakePlan(model, shapes, count, values, value_bytes, tuning, tuning_bytes, plan),
                error);
}

void srt_plan_free(srt_plan* plan) {
  if (plan == nullptr) return;
  srt_model* model = plan->model;
  srt_level* level = plan->level;
  Unmake(model->allocator, plan);
  if (level == nullptr) return;
  MutexLock lock(&model->planning);
  EndPlan(model, level);
}

uint64_t srt_plan_arena_bytes(const srt_plan* plan) { return plan->plan.arena_bytes(); }

uint64_t srt_plan_memory_bytes(const srt_plan* plan) { return plan->plan.plan_bytes(); }

int32_t srt_plan_input_shape(const srt_plan* plan, int32_t index, srt_shape* shape) {
  return PlanShape(plan, TensorAt(plan->model->graph.inputs, index), shape);
}

int32_t srt_plan_output_shape(const srt_plan* plan, int32_t index, srt_shape* shape) {
  return PlanShape(plan, TensorAt(plan->model->graph.outputs, index), shape);
}

int32_t srt_plan_input_bytes(const srt_plan* plan, int32_t index, size_t* bytes) {
  return PlanBytes(plan, TensorAt(plan->model->graph.inputs, index), bytes);
}

int32_t srt_plan_output_bytes(const srt_plan* plan, int32_t index, size_t* bytes) {
  return PlanBytes(plan, TensorAt(plan->model->graph.outputs, index), bytes);
}

int32_t srt_plan_node_count(const srt_plan* plan) {
  return static_cast<int32_t>(plan->model->graph.nodes.size());
}

int32_t srt_plan_node(const srt_plan* plan, int32_t index, srt_node_info* info) {
  if (index < 0 || index >= srt_plan_node_count(plan)) return SRT_INVALID_ARGUMENT;
  const Node& node = plan->model->graph.nodes[index];
  const sparsert::NodePlan& p = plan->plan.nodes[index];
  info->name = node.name.data;
  info->name_bytes = node.name.size;
  info->op = sparsert::OpName(node.op);
  const uint32_t y = node.outputs.size == 0 ? kNoTensor : node.outputs[0];
  info->output_shape = y == kNoTensor ? srt_shape() : ToC(plan->plan.facts.facts[y].shape);
  info->weights = p.weights;
  info->nonzeros = p.nonzeros;
  info->storage_bytes = p.storage_bytes;
  info->packed_bytes = p.packed_bytes;
  info->storage_format = p.storage_format;
  info->compute_format = p.compute_format;
  info->kernel = p.kernel;
  info->isa = p.step_count == 0 ? "" : sparsert::IsaName(p.isa);
  info->reason = p.reason;
  info->predicted_ns = p.predicted_ns;
  info->measured_ns = p.measured_ns;
  info->first_step = p.first_step;
  info->step_count = p.step_count;
  return SRT_OK;
}

int32_t srt_plan_candidate_count(const srt_plan* plan, int32_t node) {
  if (node < 0 || node >= srt_plan_node_count(plan)) return 0;
  return static_cast<int32_t>(plan->plan.nodes[node].candidate_count);
}

int32_t srt_plan_candidate(const srt_plan* plan, int32_t node, int32_t index,
                           srt_candidate* candidate) {
  if (index < 0 || index >= srt_plan_candidate_count(plan, node)) return SRT_INVALID_ARGUMENT;
  const sparsert::Candidate& c = plan->plan.CandidatesOf(static_cast<size_t>(node))[index];
  candidate->format = c.format;
  candidate->kernel = c.kernel;
  candidate->predicted_ns = c.predicted_ns;
  candidate->measured_ns = c.measured_ns;
  candidate->tiles = c.tiles;
  candidate->tile_columns = c.tile_columns;
  candidate->block_depth = c.block_depth;
  return SRT_OK;
}

int32_t srt_plan_slices(const srt_plan* plan, int64_t* images) {
  const sparsert::Stage& first = plan->plan.stages[0];
  *images = first.slice_images;
  return first.slices;
}

size_t srt_plan_tuning(const srt_plan* plan, void* buffer, size_t size) {
  return sparsert::WriteTuning(plan->plan, buffer, size);
}

int32_t srt_plan_step_count(const srt_plan* plan) {
  return static_cast<int32_t>(plan->plan.steps.size());
}

int32_t srt_plan_run(const srt_plan* plan, const srt_run* run, srt_error* error) {
  if (plan == nullptr) return Report(NullArgument("plan"), error);
  if (run == nullptr) return Report(NullArgument("run"), error);
  const Status status = CheckRun(plan, *run);
  if (!status.ok()) return Report(status, error);
  return srt_plan_run_unchecked(plan, run->arena, run->inputs, run->outputs, run->step_ns, error);
}

int32_t srt_plan_run_unchecked(const srt_plan* plan, void* arena, const void* const* inputs,
                               void* const* outputs, uint64_t* step_ns, srt_error* error) {
  const Status status =
      sparsert::RunPlan(plan->model->graph, plan->plan, arena, inputs, outputs, plan->model->pool,
                        plan->model->budget, step_ns, &sparsert::ClockNs);
  return status.ok() ? SRT_OK : Report(status, error);
}

}  // extern "C"
