// ThreadPool over POSIX threads; waiting threads spin briefly, then sleep.
#include "base/thread_pool.h"

#include <pthread.h>
#include <sched.h>

#include <atomic>
#include <new>

namespace sparsert {
namespace {

// Pauses before a waiting thread sleeps; one takes 10 to 50 nanoseconds. Between the runs of a busy
// program workers stay awake for about 100 microseconds, within a run for some milliseconds: waking
// one costs as much as a whole layer.
constexpr int kSpins = 8000;
constexpr int kActiveSpins = 200000;

inline void Pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ __volatile__("yield");
#endif
}

}  // namespace

// Work is handed out through one word, `ticket`: the number of the step (its epoch) above, the next
// free item below. Taking items is a compare-and-swap on it, which fails once the step is over; so
// a worker that comes late finds nothing, and the caller never waits for workers that took nothing.
struct ThreadPool::State {
  static constexpr int kItemBits = 40;
  static constexpr uint64_t kItemMask = (uint64_t{1} << kItemBits) - 1;

  // One step's work: written by the owner while no item of the step before is open, before the
  // ticket moves on. A reader trusts them only after its compare-and-swap.
  std::atomic<Work> work{nullptr};
  std::atomic<void*> context{nullptr};
  std::atomic<int64_t> items{0};
  std::atomic<int64_t> chunk{1};

  alignas(kCacheLine) std::atomic<uint64_t> ticket{0};
  alignas(kCacheLine) std::atomic<int64_t> done{0};  // items finished in this epoch
  alignas(kCacheLine) std::atomic<int> sleeping{0};
  std::atomic<bool> owned{false};
  std::atomic<bool> active{false};  // an owner is running steps: spin longer
  std::atomic<bool> stop{false};

  pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
  pthread_cond_t wake = PTHREAD_COND_INITIALIZER;

  struct Start {
    State* state;
    int worker;
  };
  pthread_t* thread_ids = nullptr;
  Start* starts = nullptr;
  int workers = 0;
  size_t bytes = 0;  // of the whole allocation

  // Runs items of the current epoch until none is left.
  void TakeItems(int worker) {
    uint64_t seen = ticket.load(std::memory_order_acquire);
    for (;;) {
      const Work step_work = work.load(std::memory_order_relaxed);
      void* step_context = context.load(std::memory_order_relaxed);
      const int64_t n = items.load(std::memory_order_relaxed);
      const int64_t step_chunk = chunk.load(std::memory_order_relaxed);
      const int64_t begin = static_cast<int64_t>(seen & kItemMask);
      if (begin >= n) return;
      const int64_t end = begin + step_chunk < n ? begin + step_chunk : n;
      const uint64_t next = (seen & ~kItemMask) | static_cast<uint64_t>(end);
      if (!ticket.compare_exchange_weak(seen, next, std::memory_order_acq_rel,
                                        std::memory_order_acquire)) {
        continue;
      }
      step_work(step_context, begin, end, worker);
      done.fetch_add(end - begin, std::memory_order_release);
      seen = ticket.load(std::memory_order_acquire);
    }
  }

  uint64_t Epoch() const { return ticket.load(std::memory_order_seq_cst) >> kItemBits; }

  void WakeSleepers() {
    if (sleeping.load(std::memory_order_seq_cst) == 0) return;
    pthread_mutex_lock(&mutex);
    pthread_cond_broadcast(&wake);
    pthread_mutex_unlock(&mutex);
  }
};

void ThreadPool::WorkerMain(State* state, int worker) {
  uint64_t seen = 0;
  for (;;) {
    int spins = 0;
    while (state->Epoch() == seen) {
      const bool active = state->active.load(std::memory_order_relaxed);
      if (++spins < (active ? kActiveSpins : kSpins)) {
        Pause();
        continue;
      }
      pthread_mutex_lock(&state->mutex);
      state->sleeping.fetch_add(1, std::memory_order_seq_cst);
      while (state->Epoch() == seen) pthread_cond_wait(&state->wake, &state->mutex);
      state->sleeping.fetch_sub(1, std::memory_order_seq_cst);
      pthread_mutex_unlock(&state->mutex);
    }
    seen = state->Epoch();
    if (state->stop.load(std::memory_order_relaxed)) return;
    state->TakeItems(worker);
  }
}

Status ThreadPool::Create(int threads, const Allocator* allocator, ThreadPool** pool) {
  *pool = nullptr;
  const int workers = threads > 1 ? threads - 1 : 0;
  const size_t bytes = sizeof(ThreadPool) + sizeof(State) + kCacheLine +
                       workers * (sizeof(pthread_t) + sizeof(State::Start));
  char* memory = static_cast<char*>(allocator->allocate(allocator->context, bytes, kCacheLine));
  if (memory == nullptr) return Status::OutOfMemory("thread pool", bytes);
  State* state = new (memory) State();
  char* rest = memory + sizeof(State);
  ThreadPool* made = new (rest) ThreadPool();
  rest += (sizeof(ThreadPool) + kCacheLine - 1) / kCacheLine * kCacheLine;
  state->bytes = bytes;
  state->thread_ids = reinterpret_cast<pthread_t*>(rest);
  state->starts = reinterpret_cast<State::Start*>(rest + workers * sizeof(pthread_t));
  made->state_ = state;
  made->allocator_ = allocator;
  for (int i = 0; i < workers; ++i) {
    state->starts[i] = {state, i + 1};
    auto entry = [](void* p) -> void* {
      auto* start = static_cast<State::Start*>(p);
      WorkerMain(start->state, start->worker);
      return nullptr;
    };
    if (pthread_create(&state->thread_ids[i], nullptr, entry, &state->starts[i]) != 0) break;
    state->workers = i + 1;
  }
  made->threads_ = state->workers + 1;
  *pool = made;
  return Status::Ok();
}

void ThreadPool::Destroy(ThreadPool* pool) {
  if (pool == nullptr) return;
  State* state = pool->state_;
  state->stop.store(true);
  state->items.store(0, std::memory_order_relaxed);
  state->ticket.store((state->Epoch() + 1) << State::kItemBits, std::memory_order_seq_cst);
  pthread_mutex_lock(&state->mutex);
  pthread_cond_broadcast(&state->wake);
  pthread_mutex_unlock(&state->mutex);
  for (int i = 0; i < state->workers; ++i) pthread_join(state->thread_ids[i], nullptr);
  const Allocator* allocator = pool->allocator_;
  const size_t bytes = state->bytes;
  pool->~ThreadPool();
  state->~State();
  allocator->release(allocator->context, state, bytes);
}

bool ThreadPool::Acquire() {
  bool expected = false;
  if (!state_->owned.compare_exchange_strong(expected, true, std::memory_order_acquire)) {
    return false;
  }
  state_->active.store(true, std::memory_order_relaxed);
  return true;
}

void ThreadPool::Release() {
  state_->active.store(false, std::memory_order_relaxed);
  state_->owned.store(false, std::memory_order_release);
}

void ThreadPool::Run(Work work, void* context, int64_t items, int64_t chunk) {
  State* state = state_;
  if (state->workers == 0 || items <= chunk) {
    if (items > 0) work(context, 0, items, 0);
    return;
  }
  state->work.store(work, std::memory_order_relaxed);
  state->context.store(context, std::memory_order_relaxed);
  state->items.store(items, std::memory_order_relaxed);
  state->chunk.store(chunk, std::memory_order_relaxed);
  state->done.store(0, std::memory_order_relaxed);
  state->ticket.store((state->Epoch() + 1) << State::kItemBits, std::memory_order_seq_cst);
  state->WakeSleepers();
  state->TakeItems(0);
  for (int spins = 0; state->done.load(std::memory_order_acquire) != items; ++spins) {
    if (spins < kSpins) {
      Pause();
    } else {
      sched_yield();  // a worker that holds items may need this core
    }
  }
}

}  // namespace sparsert
