// A pool of worker threads that share the work items of one step at a time.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/array.h"
#include "base/budget.h"
#include "base/status.h"

namespace sparsert {

class ThreadPool {
 public:
  // Runs `work(context, begin, end, worker)` over sub-ranges of [0, items); `worker` is 0 for the
  // calling thread and 1 .. threads - 1 for the others.
  using Work = void (*)(void* context, int64_t begin, int64_t end, int worker);

  // `threads` counts the caller: threads - 1 workers are started. Ok with fewer workers only when
  // the operating system refuses to start more. `budget`: nullptr, or what the pool's owners take
  // their cores from; idle workers then stay awake only while it has room.
  static Status Create(int threads, const Budget* budget, const Allocator* allocator,
                       ThreadPool** pool);
  static void Destroy(ThreadPool* pool);

  int threads() const { return threads_; }
  int workers() const { return threads_ - 1; }

  // A caller owns the workers between Acquire and Release; while one caller does, Acquire returns
  // false for the others, who then run alone. Never blocks.
  bool Acquire();
  void Release();

  // The owner only, within its work too: the first `workers` take part from the next step on, at
  // first all of them. The others finish the items that they hold, and sleep.
  void UseWorkers(int workers);

  // Only between Acquire and Release. Returns when all items are done. Every thread begins with its
  // share of successive items, in step after step the same share, so that what it wrote is still in
  // its own caches; with that done, it takes from the others' shares. `chunk` items are taken at a
  // time, or more if there are very many.
  void Run(Work work, void* context, int64_t items, int64_t chunk);

 private:
  struct State;
  ThreadPool() = default;
  ~ThreadPool() = default;
  static void* WorkerMain(void* slot);

  State* state_ = nullptr;
  int threads_ = 1;
  const Allocator* allocator_ = nullptr;
};

}  // namespace sparsert
