// What the core asks of the operating system: default memory, a clock, a lock.
#pragma once

#include <cstdint>

#include "base/array.h"

namespace sparsert {

const Allocator* DefaultAllocator();

// Nanoseconds since some fixed moment, never going back.
uint64_t ClockNs();

// Bytes of main memory; 0: unknown.
uint64_t PhysicalBytes();

class Mutex {
 public:
  Mutex();
  ~Mutex();
  Mutex(const Mutex&) = delete;
  Mutex& operator=(const Mutex&) = delete;
  void Lock();
  void Unlock();

 private:
  alignas(16) char storage_[64];
};

class MutexLock {
 public:
  explicit MutexLock(Mutex* mutex) : mutex_(mutex) { mutex_->Lock(); }
  ~MutexLock() { mutex_->Unlock(); }
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

 private:
  Mutex* mutex_;
};

}  // namespace sparsert
