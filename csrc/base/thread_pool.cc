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
// Pauses between two looks at the budget.
constexpr int kBudgetSpins = 64;

inline void Pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ __volatile__("yield");
#endif
}

// What is left of a thread's share: the number of the step (its epoch), the next chunk and the end.
// Taking a chunk is a compare-and-swap, which fails once the step is over; so a worker that comes
// late finds nothing, and the caller never waits for workers that took nothing.
constexpr int kChunkBits = 16;
constexpr int64_t kMaxChunks = (int64_t{1} << kChunkBits) - 1;
constexpr uint64_t kNextChunk = uint64_t{1} << kChunkBits;

inline uint64_t Share(uint32_t epoch, int64_t begin, int64_t end) {
  return static_cast<uint64_t>(epoch) << (2 * kChunkBits) |
         static_cast<uint64_t>(begin) << kChunkBits | static_cast<uint64_t>(end);
}
inline int64_t ShareBegin(uint64_t share) {
  return static_cast<int64_t>(share >> kChunkBits) & kMaxChunks;
}
inline int64_t ShareEnd(uint64_t share) { return static_cast<int64_t>(share) & kMaxChunks; }

}  // namespace

struct ThreadPool::State {
  // One per thread, the caller's first.
  struct alignas(kCacheLine) Slot {
    std::atomic<uint64_t> share{0};
    std::atomic<bool> asleep{false};
    pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    pthread_cond_t wake = PTHREAD_COND_INITIALIZER;
    State* state = nullptr;
    int worker = 0;
    pthread_t thread_id{};
  };

  // One step's work: written by the owner while no chunk is open, read by who took a chunk.
  Work work = nullptr;
  void* context = nullptr;
  int64_t items = 0;
  int64_t chunk = 1;

  alignas(kCacheLine) std::atomic<uint32_t> epoch{0};
  std::atomic<int> sharing{0};      // threads that have a share of this step
  std::atomic<int> granted{0};      // workers that the owner may use
  std::atomic<bool> active{false};  // an owner is running steps: spin longer
  std::atomic<bool> stop{false};
  alignas(kCacheLine) std::atomic<int64_t> done{0};  // chunks finished in this epoch
  alignas(kCacheLine) std::atomic<bool> owned{false};

  const Budget* budget = nullptr;
  Slot* slots = nullptr;
  int threads = 1;
  size_t bytes = 0;  // of the whole allocation

  void TakeChunks(int worker) {
    // An old number leads to shares that are used up, or past some of this step's.
    const int count = sharing.load(std::memory_order_relaxed);
    for (int i = 0; i < count; ++i) {
      const int whose = worker + i < count ? worker + i : worker + i - count;
      std::atomic<uint64_t>& share = slots[whose].share;
      int64_t finished = 0;
      uint64_t seen = share.load(std::memory_order_acquire);
      while (ShareBegin(seen) < ShareEnd(seen) &&
             worker <= granted.load(std::memory_order_relaxed)) {
        if (!share.compare_exchange_weak(seen, seen + kNextChunk, std::memory_order_acq_rel,
                                         std::memory_order_acquire)) {
          continue;
        }
        const int64_t begin = ShareBegin(seen) * chunk;
        const int64_t end = begin + chunk < items ? begin + chunk : items;
        work(context, begin, end, worker);
        ++finished;
        seen = share.load(std::memory_order_acquire);
      }
      if (finished != 0) done.fetch_add(finished, std::memory_order_release);
    }
  }

  // Threads are woken by each other, as in a tree: the caller alone would take too long for many.
  void WakeTwo(int worker) {
    const int count = sharing.load(std::memory_order_relaxed);
    for (int next = 2 * worker + 1; next <= 2 * worker + 2 && next < count; ++next) {
      if (slots[next].asleep.load(std::memory_order_seq_cst)) Wake(&slots[next]);
    }
  }

  static void Wake(Slot* slot) {
    pthread_mutex_lock(&slot->mutex);
    pthread_cond_signal(&slot->wake);
    pthread_mutex_unlock(&slot->mutex);
  }

  // Whether a worker that has waited for `spins` pauses stays awake.
  bool StaysAwake(int worker, int spins) const {
    if (worker > granted.load(std::memory_order_relaxed)) return false;
    if (active.load(std::memory_order_relaxed)) return spins < kActiveSpins;
    if (spins >= kSpins) return false;
    return budget == nullptr || spins % kBudgetSpins != 0 || budget->HasRoom();
  }

  // Waits for an epoch other than `seen`, and returns it.
  uint32_t WaitForStep(Slot* slot, uint32_t seen) {
    for (int spins = 0;;) {
      const uint32_t now = epoch.load(std::memory_order_seq_cst);
      if (now != seen) return now;
      if (StaysAwake(slot->worker, spins)) {
        ++spins;
        Pause();
        continue;
      }
      pthread_mutex_lock(&slot->mutex);
      slot->asleep.store(true, std::memory_order_seq_cst);
      while (epoch.load(std::memory_order_seq_cst) == seen) {
        pthread_cond_wait(&slot->wake, &slot->mutex);
      }
      slot->asleep.store(false, std::memory_order_seq_cst);
      pthread_mutex_unlock(&slot->mutex);
    }
  }
};

void* ThreadPool::WorkerMain(void* slot) {
  auto* own = static_cast<State::Slot*>(slot);
  State* state = own->state;
  for (uint32_t epoch = 0;;) {
    epoch = state->WaitForStep(own, epoch);
    if (state->stop.load(std::memory_order_relaxed)) return nullptr;
    if (own->worker >= state->sharing.load(std::memory_order_relaxed)) continue;
    state->WakeTwo(own->worker);
    state->TakeChunks(own->worker);
  }
}

Status ThreadPool::Create(int threads, const Budget* budget, const Allocator* allocator,
                          ThreadPool** pool) {
  *pool = nullptr;
  if (threads < 1) threads = 1;
  constexpr size_t kPoolBytes = (sizeof(ThreadPool) + kCacheLine - 1) / kCacheLine * kCacheLine;
  const size_t bytes =
      sizeof(State) + kPoolBytes + static_cast<size_t>(threads) * sizeof(State::Slot);
  char* memory = static_cast<char*>(allocator->allocate(allocator->context, bytes, kCacheLine));
  if (memory == nullptr) return Status::OutOfMemory("thread pool", bytes);
  State* state = new (memory) State();
  ThreadPool* made = new (memory + sizeof(State)) ThreadPool();
  state->slots = reinterpret_cast<State::Slot*>(memory + sizeof(State) + kPoolBytes);
  for (int i = 0; i < threads; ++i) {
    State::Slot* slot = new (&state->slots[i]) State::Slot();
    slot->state = state;
    slot->worker = i;
  }
  state->budget = budget;
  state->bytes = bytes;
  made->state_ = state;
  made->allocator_ = allocator;
  for (int i = 1; i < threads; ++i) {
    State::Slot* slot = &state->slots[i];
    if (pthread_create(&slot->thread_id, nullptr, &WorkerMain, slot) != 0) break;
    state->threads = i + 1;
  }
  made->threads_ = state->threads;
  *pool = made;
  return Status::Ok();
}

void ThreadPool::Destroy(ThreadPool* pool) {
  if (pool == nullptr) return;
  State* state = pool->state_;
  state->stop.store(true, std::memory_order_relaxed);
  state->epoch.fetch_add(1, std::memory_order_seq_cst);
  for (int i = 1; i < state->threads; ++i) State::Wake(&state->slots[i]);
  for (int i = 1; i < state->threads; ++i) pthread_join(state->slots[i].thread_id, nullptr);
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
  UseWorkers(workers());
  state_->active.store(true, std::memory_order_relaxed);
  return true;
}

void ThreadPool::Release() {
  state_->active.store(false, std::memory_order_relaxed);
  state_->owned.store(false, std::memory_order_release);
}

void ThreadPool::UseWorkers(int workers) {
  state_->granted.store(workers, std::memory_order_relaxed);
}

void ThreadPool::Run(Work work, void* context, int64_t items, int64_t chunk) {
  State* state = state_;
  const int64_t threads = 1 + state->granted.load(std::memory_order_relaxed);
  if (threads == 1 || items <= chunk) {
    if (items > 0) work(context, 0, items, 0);
    return;
  }
  if (items / chunk >= kMaxChunks) chunk = items / kMaxChunks + 1;
  const int64_t chunks = (items + chunk - 1) / chunk;
  const int64_t sharing = threads < chunks ? threads : chunks;
  state->work = work;
  state->context = context;
  state->items = items;
  state->chunk = chunk;
  state->done.store(0, std::memory_order_relaxed);
  const uint32_t epoch = state->epoch.load(std::memory_order_relaxed) + 1;
  for (int64_t i = 0; i < sharing; ++i) {
    const uint64_t share = Share(epoch, i * chunks / sharing, (i + 1) * chunks / sharing);
    state->slots[i].share.store(share, std::memory_order_release);
  }
  state->sharing.store(static_cast<int>(sharing), std::memory_order_relaxed);
  state->epoch.store(epoch, std::memory_order_seq_cst);
  state->WakeTwo(0);
  state->TakeChunks(0);
  for (int spins = 0; state->done.load(std::memory_order_acquire) != chunks; ++spins) {
    if (spins < kSpins) {
      Pause();
    } else {
      sched_yield();  // a worker that holds items may need this core
    }
  }
}

}  // namespace sparsert
