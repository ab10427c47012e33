// Timing of candidates at plan time.
#include "plan/measure.h"

#include <algorithm>
#include <cmath>

namespace sparsert {
namespace {

// Larger than the L2 of most cores: reading it evicts what a candidate left there, as the other
// layers of the model would.
constexpr size_t kEvictBytes = 4 << 20;

// Enough unpredictable branches to displace what a predictor has learnt of a layer.
constexpr int kBranches = 196608;
// At so many places in the code: those of a single one leave some of it.
constexpr int kBranchPlaces = 32;

// Whole vectors behind the last column that a kernel may read.
constexpr size_t kSlackFloats = 16 * 8;

void ReadLines(const volatile char* from, size_t bytes) {
  for (size_t at = 0; at < bytes; at += kCacheLine) static_cast<void>(from[at]);
}

// Walks over pseudo-random bits by branches that the compiler may not remove.
void ConfuseBranches(uint64_t seed) {
  uint64_t bits = seed * 0x9e3779b97f4a7c15u + 1;
  for (int i = 0; i < kBranches; i += kBranchPlaces) {
    bits ^= bits << 13;
    bits ^= bits >> 7;
    bits ^= bits << 17;
#pragma GCC unroll 32
    for (int k = 0; k < kBranchPlaces; ++k) {
      if ((bits >> k & 1) != 0) __asm__ __volatile__("" : "+r"(bits));
    }
  }
}

}  // namespace

TrialBench::TrialBench(const Allocator* allocator) : scratch_(allocator), evict_(allocator) {
  for (Array<float>& buffer : buffers_) buffer.set_allocator(allocator);
}

Status TrialBench::Reserve(const size_t* floats) {
  if (evict_.empty()) SRT_RETURN_IF_ERROR(evict_.resize(kEvictBytes));
  for (int i = 0; i < kTrialBuffers; ++i) {
    Array<float>& buffer = buffers_[i];
    used_[i] = floats[i];
    const size_t old = buffer.size();
    if (floats[i] == 0 || floats[i] + kSlackFloats <= old) continue;
    SRT_RETURN_IF_ERROR(buffer.resize(floats[i] + kSlackFloats));
    for (size_t at = old; at < buffer.size(); ++at) {
      buffer[at] = 0.25f + static_cast<float>(at % 31) * 0.03125f;
    }
  }
  return Status::Ok();
}

void TrialBench::Forget() {
  if (warm_) return;
  ReadLines(evict_.data(), kEvictBytes);
  ConfuseBranches(++runs_);
}

// What a cache may hold of it.
void TrialBench::ReadInput(TrialBuffer buffer) {
  const size_t bytes = used_[buffer] * sizeof(float);
  const size_t read = std::min(bytes, kEvictBytes);
  if (read != 0)
    ReadLines(reinterpret_cast<const char*>(buffers_[buffer].data()) + bytes - read, read);
}

void TrialBench::RunOnce(const Trial& trial, int64_t first_items) {
  for (int p = 0; p < trial.part_count; ++p) {
    const Trial::Part& part = trial.parts[p];
    void* io[Trial::kMaxTrialIo];
    for (int i = 0; i < part.io_count; ++i) {
      io[i] = part.io[i] == kNoBuffer ? nullptr : buffers_[part.io[i]].data();
    }
    part.kernel.run(part.args, io, 0, p == 0 ? first_items : part.items, scratch_.data());
  }
}

Status TrialBench::Time(const Trial& trial, const Weights* far, double share, uint64_t (*clock)(),
                        double* ns) {
  for (int p = 0; p < trial.part_count; ++p) {
    const size_t bytes = trial.parts[p].scratch_bytes;
    if (bytes > scratch_.size()) SRT_RETURN_IF_ERROR(scratch_.resize(bytes));
  }
  const Trial::Part& first = trial.parts[0];
  int64_t items = first.items;
  if (trial.part_count == 1 && trial.share == 1.0) {
    // Two items at least: the first one alone meets weights that are colder than the rest's.
    items = static_cast<int64_t>(std::ceil(static_cast<double>(items) * share));
    items = std::min(first.items, std::max<int64_t>(2, items));
  }
  constexpr int kWarmRuns = 4;
  const int runs = warm_ ? kWarmRuns : 1;
  if (warm_) {
    RunOnce(trial, items);
  } else {
    ReadInput(kTrialR);
    ReadInput(kTrialX);
    if (trial.settles) RunOnce(trial, first.items);
    for (const PackKey& key : trial.keys) {
      if (far != nullptr && key.tensor != kNoTensor) far->FlushPacked(key);
    }
  }
  const uint64_t begin = clock();
  for (int i = 0; i < runs; ++i) RunOnce(trial, items);
  *ns = static_cast<double>(clock() - begin) / runs / trial.share;
  if (items > 0) *ns *= static_cast<double>(first.items) / static_cast<double>(items);
  return Status::Ok();
}

}  // namespace sparsert
