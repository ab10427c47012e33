// What the core asks of the operating system: default memory, a clock, a lock, mapped files.
// platform.cc answers over POSIX, bare.cc where there is no operating system.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/array.h"

namespace sparsert {

const Allocator* DefaultAllocator();

// Nanoseconds since some fixed moment, never going back; always 0 where there is no clock.
uint64_t ClockNs();
bool HasClock();

// The value of an environment variable, or nullptr.
const char* Environment(const char* name);

// Bytes of main memory; 0: unknown.
uint64_t PhysicalBytes();

// Pages of a read-only mapping of a file leave this process's memory, and come back when they are
// read again. Only whole pages do.
void ForgetPages(const void* begin, size_t bytes);

// Of memory that begins at a multiple of this size, whole huge pages may be made.
constexpr size_t kHugePageBytes = size_t{2} << 20;

// Asks for huge pages, where the system has them. What lies in one is contiguous for the caches
// too: of tensors in pages from all over memory, many fall onto the same lines.
void PreferHugePages(void* begin, size_t bytes);

// A file mapped for reading until the object goes.
class MappedFile {
 public:
  MappedFile() = default;
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  // Once. Returns nullptr, or why the file cannot be mapped. An empty one cannot.
  const char* Open(const char* path);
  const void* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  void* data_ = nullptr;
  size_t size_ = 0;
};

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
