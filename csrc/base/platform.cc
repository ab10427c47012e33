// The platform over POSIX.
#include "base/platform.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <new>

namespace sparsert {
namespace {

// From this size on, memory comes straight from the system and goes back there at once: malloc
// would keep what trials and packing let go, as holes between the packings that stay.
#if defined(__SANITIZE_ADDRESS__)
constexpr size_t kMapBytes = SIZE_MAX;  // the sanitizer watches over malloc alone
#else
constexpr size_t kMapBytes = 128 << 10;
#endif
constexpr size_t kPageAlignment = 4096;  // at least

void* PosixAllocate(void*, size_t bytes, size_t alignment) {
  if (bytes >= kMapBytes) {
    if (alignment > kPageAlignment) return nullptr;
    void* pages = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return pages == MAP_FAILED ? nullptr : pages;
  }
  void* memory = nullptr;
  if (posix_memalign(&memory, alignment < sizeof(void*) ? sizeof(void*) : alignment,
                     bytes == 0 ? 1 : bytes) != 0) {
    return nullptr;
  }
  return memory;
}

void PosixRelease(void*, void* memory, size_t bytes) {
  if (bytes >= kMapBytes) {
    munmap(memory, bytes);
  } else {
    free(memory);
  }
}

const Allocator kPosixAllocator = {&PosixAllocate, &PosixRelease, nullptr};

static_assert(sizeof(pthread_mutex_t) <= 64, "Mutex storage is too small");

}  // namespace

const Allocator* DefaultAllocator() { return &kPosixAllocator; }

uint64_t ClockNs() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1000000000u + static_cast<uint64_t>(now.tv_nsec);
}

bool HasClock() { return true; }

const char* Environment(const char* name) { return getenv(name); }

uint64_t PhysicalBytes() {
  const long pages = sysconf(_SC_PHYS_PAGES);
  const long bytes = sysconf(_SC_PAGESIZE);
  return pages < 1 || bytes < 1 ? 0 : static_cast<uint64_t>(pages) * static_cast<uint64_t>(bytes);
}

void ForgetPages(const void* begin, size_t bytes) {
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const auto address = reinterpret_cast<uintptr_t>(begin);
  const uintptr_t first = (address + page - 1) / page * page;
  const uintptr_t end = (address + bytes) / page * page;
  if (end > first) madvise(reinterpret_cast<void*>(first), end - first, MADV_DONTNEED);
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) munmap(data_, size_);
}

const char* MappedFile::Open(const char* path) {
  const int file = open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0) return strerror(errno);
  const char* reason = nullptr;
  struct stat facts;
  if (fstat(file, &facts) != 0) {
    reason = strerror(errno);
  } else if (!S_ISREG(facts.st_mode)) {
    reason = "not a regular file";
  } else if (facts.st_size == 0) {
    reason = "the file is empty";
  } else if (static_cast<uint64_t>(facts.st_size) > SIZE_MAX) {
    reason = "the file is too large to be mapped";
  } else {
    const auto size = static_cast<size_t>(facts.st_size);
    void* mapped = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file, 0);
    if (mapped == MAP_FAILED) {
      reason = strerror(errno);
    } else {
      data_ = mapped;
      size_ = size;
    }
  }
  close(file);
  return reason;
}

void PreferHugePages(void* begin, size_t bytes) {
#if defined(MADV_HUGEPAGE)
  madvise(begin, bytes, MADV_HUGEPAGE);
#else
  static_cast<void>(begin);
  static_cast<void>(bytes);
#endif
}

Mutex::Mutex() { pthread_mutex_init(new (storage_) pthread_mutex_t, nullptr); }
Mutex::~Mutex() { pthread_mutex_destroy(reinterpret_cast<pthread_mutex_t*>(storage_)); }
void Mutex::Lock() { pthread_mutex_lock(reinterpret_cast<pthread_mutex_t*>(storage_)); }
void Mutex::Unlock() { pthread_mutex_unlock(reinterpret_cast<pthread_mutex_t*>(storage_)); }

}  // namespace sparsert
