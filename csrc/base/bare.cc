// The platform of a machine without an operating system: one thread, no memory but the caller's, no
// files, no clock. Takes the place of platform.cc, thread_pool.cc and usable_cores.cc.
#include "base/platform.h"
#include "base/thread_pool.h"
#include "base/usable_cores.h"

namespace sparsert {
namespace {

void* NoMemory(void*, size_t, size_t) { return nullptr; }
void NothingToRelease(void*, void*, size_t) {}

const Allocator kNoAllocator = {&NoMemory, &NothingToRelease, nullptr};

}  // namespace

const Allocator* DefaultAllocator() { return &kNoAllocator; }

uint64_t ClockNs() { return 0; }

bool HasClock() { return false; }

const char* Environment(const char*) { return nullptr; }

uint64_t PhysicalBytes() { return 0; }

void ForgetPages(const void*, size_t) {}

void PreferHugePages(void*, size_t) {}

MappedFile::~MappedFile() = default;

const char* MappedFile::Open(const char*) { return "this build of the library opens no files"; }

Mutex::Mutex() = default;
Mutex::~Mutex() = default;
void Mutex::Lock() {}
void Mutex::Unlock() {}

// No pool is ever made: whoever asks for one runs alone.
struct ThreadPool::State {};

Status ThreadPool::Create(int threads, const Budget*, const Allocator*, ThreadPool** pool) {
  *pool = nullptr;
  return Status::Error(StatusCode::kUnsupported,
                       "threads is %d, this build of the library runs on 1", threads);
}

void ThreadPool::Destroy(ThreadPool*) {}

bool ThreadPool::Acquire() { return false; }

void ThreadPool::Release() {}

void ThreadPool::UseWorkers(int) {}

void ThreadPool::Run(Work, void*, int64_t, int64_t) {}

int CountUsableCores(const CpuMask&, const char*) { return 1; }

int UsableCores() { return 1; }

}  // namespace sparsert
