// A pool of worker threads that share the work items of one step at a time.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/array.h"
#include "base/status.h"

namespace sparsert {

class ThreadPool {
 public:
  // Runs `work(context, begin, end, worker)` over sub-ranges of [0, items); `worker` is 0 for the
  // calling thread and 1 .. threads - 1 for the others.
  using Work = void (*)(void* context, int64_t begin, int64_t end, int worker);

  // `threads` counts the caller: threads - 1 workers are started. Ok with fewer workers only when
  // the operating system refuses to start more.
  static Status Create(int threads, const Allocator* allocator, ThreadPool** pool);
  static void Destroy(ThreadPool* pool);

  int threads() const { return threads_; }

  // A caller owns the workers between Acquire and Release; while one caller does, Acquire returns
  // false for the others, who then run alone. Never blocks.
  bool Acquire();
  void Release();

  // Only between Acquire and Release. Returns when all items are done. Ranges of `chunk` items are
  // handed out in order to whoever is free.
  void Run(Work work, void* context, int64_t items, int64_t chunk);

 private:
  struct State;
  ThreadPool() = default;
  ~ThreadPool() = default;
  static void WorkerMain(State* state, int worker);

  State* state_ = nullptr;
  int threads_ = 1;
  const Allocator* allocator_ = nullptr;
};

}  // namespace sparsert
