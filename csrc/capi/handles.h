// What the C interface's handles stand for.
#pragma once

#include <cstdio>
#include <new>

#include "base/platform.h"
#include "base/thread_pool.h"
#include "include/sparsert.h"
#include "plan/plan.h"

// A level in use: its graph, and the weights that it does not share with the others.
struct srt_level {
  srt_level(const sparsert::Allocator* a, sparsert::Weights* shared, const bool* own)
      : graph(a), keeps(a), weights(&graph, a, shared, own) {}

  sparsert::Graph graph;
  sparsert::Array<uint8_t> keeps;  // that `graph` points into
  sparsert::Weights weights;
  int32_t plans = 0;
  bool dropped = false;  // goes with the last of its plans
};

struct srt_budget {
  srt_budget(const sparsert::Allocator& a, int cores) : allocator(a), budget(cores) {}

  sparsert::Allocator allocator;
  sparsert::Budget budget;
};

struct srt_model {
  explicit srt_model(const sparsert::Allocator& a) : allocator(a), graph(&allocator) {}
  ~srt_model();

  sparsert::Allocator allocator;
  sparsert::MappedFile file;  // of srt_model_load_file(); all else may point into it
  sparsert::Graph graph;
  sparsert::PlanOptions options;
  sparsert::Budget* budget = nullptr;
  sparsert::ThreadPool* pool = nullptr;
  sparsert::Weights weights{&graph, &allocator};  // of levels: what they share
  sparsert::Array<bool> own{&allocator};          // [graph.tensors] whether levels differ in it
  // [graph.levels] nullptr: not in use.
  sparsert::Array<srt_level*> levels{&allocator};
  int32_t level = 0;                              // of plans to be made
  sparsert::Mutex planning;                       // guards `weights`, `levels` and `level`
  sparsert::Array<bool> plan_inputs{&allocator};  // [graph.inputs]
};

struct srt_plan {
  explicit srt_plan(srt_model* m) : model(m), plan(&m->allocator) {}

  srt_model* model;
  srt_level* level = nullptr;  // nullptr: of a model without levels
  sparsert::Plan plan;
};

// Fills `error` unless it is NULL, and returns the code.
inline int32_t Report(const sparsert::Status& status, srt_error* error) {
  if (error != nullptr && !status.ok()) {
    error->code = static_cast<int32_t>(status.code());
    snprintf(error->text, sizeof(error->text), "%s", status.text());
  }
  return static_cast<int32_t>(status.code());
}

// Constructs T in memory of the allocator, or returns nullptr.
template <typename T, typename... Args>
T* Make(const sparsert::Allocator& allocator, Args&&... args) {
  void* memory = allocator.allocate(allocator.context, sizeof(T), sparsert::kCacheLine);
  return memory == nullptr ? nullptr : new (memory) T(args...);
}

template <typename T>
void Unmake(const sparsert::Allocator& allocator, T* object) {
  object->~T();
  allocator.release(allocator.context, object, sizeof(T));
}

// Levels (levels.cc). `planning` of the model is held.

// Makes a level ready for a plan.
sparsert::Status UseLevel(srt_model* model, size_t index, srt_level** level);
// Frees a level that has no plans; nullptr counts.
void FreeLevel(srt_model* model, size_t index);
// A plan of the level is gone.
void EndPlan(srt_model* model, srt_level* level);
// In memory.
uint64_t PackedBytes(const srt_level& level);
