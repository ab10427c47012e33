// What the core asks of the operating system: default memory, a clock, a lock, mapped files.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/array.h"

namespace sparsert {

const Allocator* DefaultAllocator();

// Nanoseconds since some fixed moment, never going back.
uint64_t ClockNs();

// The pages within bytes[0, size) of a mapped file need not stay in memory: they are read again
// when they are used. Only for mapped files: other memory would lose what it holds.
void ForgetPages(const void* bytes, size_t size);

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
