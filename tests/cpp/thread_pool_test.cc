// ThreadPool and Budget: every item once, by the threads that may, whoever comes late.
#include "base/thread_pool.h"

#include <atomic>
#include <chrono>
#include <cstdio>
#include <memory>
#include <thread>
#include <vector>

#include "base/platform.h"

namespace sparsert {
namespace {

std::atomic<int> failures{0};
std::atomic<int> checks{0};

void Expect(bool condition, const char* what, long long a = 0, long long b = 0) {
  ++checks;
  if (condition || ++failures > 40) return;
  std::printf("FAIL %s: %lld %lld\n", what, a, b);
}

struct PoolDeleter {
  void operator()(ThreadPool* pool) const { ThreadPool::Destroy(pool); }
};
using PoolPtr = std::unique_ptr<ThreadPool, PoolDeleter>;

PoolPtr MakePool(int threads, const Budget* budget = nullptr) {
  ThreadPool* pool = nullptr;
  const Status status = ThreadPool::Create(threads, budget, DefaultAllocator(), &pool);
  Expect(status.ok() && pool->threads() == threads, "Create", threads);
  return PoolPtr(pool);
}

// Counts how often each item runs, and by whom. Plain integers: an item that two threads run is a
// data race too.
struct Tally {
  explicit Tally(int64_t items) : runs(static_cast<size_t>(items)) {}

  static void Add(void* context, int64_t begin, int64_t end, int worker) {
    auto* tally = static_cast<Tally*>(context);
    for (int64_t i = begin; i < end; ++i) ++tally->runs[static_cast<size_t>(i)];
    int highest = tally->highest.load();
    while (worker > highest && !tally->highest.compare_exchange_weak(highest, worker)) {
    }
    ++tally->calls;
  }

  bool EachOnce() const {
    for (const int n : runs) {
      if (n != 1) return false;
    }
    return true;
  }

  std::vector<int> runs;
  std::atomic<int> highest{0};
  std::atomic<int64_t> calls{0};
};

void TestEveryItemOnce() {
  for (const int threads : {1, 2, 3, 5}) {
    PoolPtr pool = MakePool(threads);
    Expect(pool->Acquire(), "Acquire");
    for (const int64_t items : {0, 1, 2, 3, 7, 64, 1000, 65535, 65536, 200003}) {
      for (const int64_t chunk : {1, 2, 3, 64, 100000, 300000}) {
        Tally tally(items);
        pool->Run(&Tally::Add, &tally, items, chunk);
        Expect(tally.EachOnce(), "an item did not run once", items, chunk);
        Expect(tally.highest < threads, "a thread that does not exist", tally.highest);
        Expect(items > chunk || tally.calls <= 1, "a single chunk is cut", items, chunk);
      }
    }
    pool->Release();
  }
}

// Short steps of changing length, so that workers come late and meet the steps after theirs.
void TestManySteps() {
  for (const int threads : {2, 4}) {
    PoolPtr pool = MakePool(threads);
    Expect(pool->Acquire(), "Acquire");
    bool right = true;
    for (int step = 0; step < 20000; ++step) {
      Tally tally(1 + step * 7 % 23);
      pool->Run(&Tally::Add, &tally, static_cast<int64_t>(tally.runs.size()), 1 + step % 2);
      right &= tally.EachOnce();
    }
    Expect(right, "an item of many steps did not run once", threads);
    pool->Release();
  }
}

void TestSleepingWorkersWake() {
  PoolPtr pool = MakePool(5);
  for (int run = 0; run < 5; ++run) {
    // Longer than workers stay awake.
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    Expect(pool->Acquire(), "Acquire");
    // Each thread waits for the others in its first chunk: none of them may sleep on.
    struct Meeting {
      std::atomic<int> here{0};
    } meeting;
    auto meet = [](void* context, int64_t, int64_t, int) {
      auto* m = static_cast<Meeting*>(context);
      ++m->here;
      while (m->here < 5) std::this_thread::yield();
    };
    pool->Run(meet, &meeting, 5, 1);
    Expect(meeting.here == 5, "a worker did not wake");
    pool->Release();
  }
}

void TestOneOwner() {
  PoolPtr pool = MakePool(2);
  Expect(pool->Acquire() && !pool->Acquire(), "two owners");
  pool->Release();
  Expect(pool->Acquire(), "no owner after Release");
  pool->Release();

  // Callers that fight for the pool; who does not get it runs alone.
  std::vector<std::thread> callers;
  std::atomic<int> wrong{0};
  for (int i = 0; i < 4; ++i) {
    callers.emplace_back([&pool, &wrong] {
      for (int run = 0; run < 500; ++run) {
        Tally tally(37);
        if (pool->Acquire()) {
          pool->Run(&Tally::Add, &tally, 37, 2);
          pool->Release();
        } else {
          Tally::Add(&tally, 0, 37, 0);
        }
        wrong += !tally.EachOnce();
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  Expect(wrong == 0, "wrong runs of several callers", wrong);
}

void TestUseWorkers() {
  PoolPtr pool = MakePool(4);
  Expect(pool->Acquire(), "Acquire");
  for (const int workers : {3, 0, 1, 2, 0, 3}) {
    pool->UseWorkers(workers);
    for (int run = 0; run < 200; ++run) {
      Tally tally(50);
      pool->Run(&Tally::Add, &tally, 50, 1);
      Expect(tally.EachOnce() && tally.highest <= workers, "worker", tally.highest, workers);
    }
  }
  // Given back within a step: the rest is done by who is left.
  struct Step {
    ThreadPool* pool;
    Tally tally{400};
  } step{pool.get()};
  auto shrink = [](void* context, int64_t begin, int64_t end, int worker) {
    auto* s = static_cast<Step*>(context);
    if (worker == 0) s->pool->UseWorkers(0);
    Tally::Add(&s->tally, begin, end, worker);
  };
  pool->UseWorkers(3);
  pool->Run(shrink, &step, 400, 1);
  Expect(step.tally.EachOnce(), "items are lost when workers leave");
  pool->Release();
}

void TestBudget() {
  Budget budget(4);
  budget.Enter();
  Expect(budget.busy() == 1 && budget.HasRoom(), "a caller is one core");
  Expect(budget.Settle(0, 7) == 3, "what is left");
  Expect(budget.busy() == 4 && !budget.HasRoom() && budget.peak() == 4, "all are busy");
  budget.Enter();  // a second caller: one too many, until the first one settles
  Expect(budget.busy() == 5, "a caller does not wait");
  Expect(budget.Settle(0, 7) == 0, "nothing is left for the second");
  Expect(budget.Settle(3, 7) == 2 && budget.busy() == 4, "the first gives back one");
  for (int i = 0; i < 4; ++i) budget.Enter();
  Expect(budget.Settle(2, 7) == 0, "the first gives back all");
  Expect(budget.busy() == 6 && budget.peak() == 8, "callers alone", budget.busy(), budget.peak());
  for (int i = 0; i < 5; ++i) budget.Leave(0);
  Expect(budget.Settle(0, 2) == 2, "no more than wanted");
  budget.set_cores(2);
  Expect(budget.Settle(2, 2) == 1, "fewer cores");
  budget.Leave(1);
  Expect(budget.busy() == 0, "all is given back", budget.busy());
  budget.Enter();
  budget.Reset();
  Expect(budget.busy() == 0 && budget.peak() == 0, "reset");
}

// Pools of several callers on one budget: what runs at once, counted by the work itself.
void TestBudgetOfManyPools() {
  constexpr int kCallers = 3;
  constexpr int kCores = 4;
  Budget budget(kCores);
  struct Shared {
    std::atomic<int> running{0};
    std::atomic<int> most{0};
    std::atomic<int> wrong{0};
  } shared;
  struct Step {
    Shared* shared;
    Tally tally{60};
  };
  auto work = [](void* context, int64_t begin, int64_t end, int worker) {
    auto* step = static_cast<Step*>(context);
    const int running = ++step->shared->running;
    int most = step->shared->most.load();
    while (running > most && !step->shared->most.compare_exchange_weak(most, running)) {
    }
    Tally::Add(&step->tally, begin, end, worker);
    --step->shared->running;
  };
  std::vector<std::thread> callers;
  for (int i = 0; i < kCallers; ++i) {
    callers.emplace_back([&] {
      PoolPtr pool = MakePool(kCores, &budget);
      for (int run = 0; run < 100; ++run) {
        budget.Enter();
        shared.wrong += !pool->Acquire();
        int held = 0;
        for (int s = 0; s < 20; ++s) {
          held = budget.Settle(held, pool->workers());
          pool->UseWorkers(held);
          Step step{&shared};
          pool->Run(work, &step, 60, 1);
          shared.wrong += !step.tally.EachOnce();
        }
        pool->Release();
        budget.Leave(held);
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  Expect(shared.wrong == 0, "wrong steps", shared.wrong);
  Expect(budget.busy() == 0, "cores are not given back", budget.busy());
  const int limit = kCores + kCallers - 1;
  Expect(budget.peak() >= 2 && budget.peak() <= limit, "the budget's peak", budget.peak(), limit);
  Expect(shared.most <= limit, "threads that ran at once", shared.most, limit);
}

void TestPoolsComeAndGo() {
  for (int i = 0; i < 200; ++i) {
    PoolPtr pool = MakePool(3);
    if (i % 3 == 0) continue;
    Tally tally(9);
    Expect(pool->Acquire(), "Acquire");
    pool->Run(&Tally::Add, &tally, 9, 1);
    Expect(tally.EachOnce(), "a short life");
    if (i % 3 == 1) pool->Release();
  }
}

}  // namespace
}  // namespace sparsert

int main() {
  sparsert::TestEveryItemOnce();
  sparsert::TestManySteps();
  sparsert::TestSleepingWorkersWake();
  sparsert::TestOneOwner();
  sparsert::TestUseWorkers();
  sparsert::TestBudget();
  sparsert::TestBudgetOfManyPools();
  sparsert::TestPoolsComeAndGo();
  std::printf("thread_pool_test: %d checks, %d failures\n", sparsert::checks.load(),
              sparsert::failures.load());
  return sparsert::failures == 0 ? 0 : 1;
}
