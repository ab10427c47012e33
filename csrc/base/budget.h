// Budget: the cores that runs of several models share. It counts and never blocks.
#pragma once

#include <atomic>

namespace sparsert {

class Budget {
 public:
  explicit Budget(int cores) : cores_(cores) {}

  int cores() const { return cores_.load(std::memory_order_relaxed); }
  void set_cores(int cores) { cores_.store(cores, std::memory_order_relaxed); }

  // A caller begins a run, or ends it holding `workers`. It is one busy core itself, whether one
  // was left or not.
  void Enter() { Raise(busy_.fetch_add(1, std::memory_order_relaxed) + 1); }
  void Leave(int workers) { busy_.fetch_sub(1 + workers, std::memory_order_relaxed); }

  // For a caller that holds `held` workers and has a use for `wanted`: how many it holds from now
  // on. More than before only as far as cores are left; fewer when others took theirs meanwhile.
  int Settle(int held, int wanted) {
    int busy = busy_.load(std::memory_order_relaxed);
    for (;;) {
      const int others = busy - held;
      const int left = cores() - others;
      const int next = left < 0 ? 0 : left < wanted ? left : wanted;
      if (next == held) return held;
      if (busy_.compare_exchange_weak(busy, others + next, std::memory_order_relaxed)) {
        if (next > held) Raise(others + next);
        return next;
      }
    }
  }

  bool HasRoom() const { return busy() < cores(); }
  int busy() const { return busy_.load(std::memory_order_relaxed); }
  // The most cores that were busy at once.
  int peak() const { return peak_.load(std::memory_order_relaxed); }

  // As new: in the child of a fork, where the threads that were counted do not exist.
  void Reset() {
    busy_.store(0, std::memory_order_relaxed);
    peak_.store(0, std::memory_order_relaxed);
  }

 private:
  void Raise(int busy) {
    int peak = peak_.load(std::memory_order_relaxed);
    while (busy > peak && !peak_.compare_exchange_weak(peak, busy, std::memory_order_relaxed)) {
    }
  }

  std::atomic<int> cores_;
  std::atomic<int> busy_{0};
  std::atomic<int> peak_{0};
};

}  // namespace sparsert
