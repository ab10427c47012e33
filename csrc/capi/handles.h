// What the C interface's handles stand for.
#pragma once

#include "base/platform.h"
#include "base/thread_pool.h"
#include "include/sparsert.h"
#include "plan/plan.h"

struct srt_budget {
  srt_budget(const sparsert::Allocator& a, int cores) : allocator(a), budget(cores) {}

  sparsert::Allocator allocator;
  sparsert::Budget budget;
};

struct srt_model {
  explicit srt_model(const sparsert::Allocator& a) : allocator(a), graph(&allocator) {}
  ~srt_model() { sparsert::ThreadPool::Destroy(pool); }

  sparsert::Allocator allocator;
  sparsert::MappedFile file;  // of srt_model_load_file(); all else may point into it
  sparsert::Graph graph;
  sparsert::PlanOptions options;
  sparsert::Budget* budget = nullptr;
  sparsert::ThreadPool* pool = nullptr;
  sparsert::Weights weights{&graph, &allocator};
  sparsert::Mutex planning;                       // guards `weights`
  sparsert::Array<bool> plan_inputs{&allocator};  // [graph.inputs]
};

struct srt_plan {
  explicit srt_plan(srt_model* m) : model(m), plan(&m->allocator) {}

  srt_model* model;
  sparsert::Plan plan;
};
