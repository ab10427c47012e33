// Timing of candidates at plan time.
#include "plan/measure.h"

#include <algorithm>

namespace sparsert {
namespace {

constexpr int kRuns = 5;
// Larger than the L2 of most cores: reading it evicts what a candidate left there, as the other
// layers of the model would.
constexpr size_t kEvictBytes = 4 << 20;

// Enough unpredictable branches to displace what a predictor has learnt of a layer.
constexpr int kBranches = 8192;

// Walks over pseudo-random bits by branches that the compiler may not remove.
void ConfuseBranches(uint64_t seed) {
  uint64_t bits = seed * 0x9e3779b97f4a7c15u + 1;
  for (int i = 0; i < kBranches; ++i) {
    bits ^= bits << 13;
    bits ^= bits >> 7;
    bits ^= bits << 17;
    if ((bits & 1) != 0) __asm__ __volatile__("" : "+r"(bits));
  }
}

}  // namespace

Status MeasureSpmm(const SpmmArgs* const* args, const SpmmChoice* choices, int count,
                   uint64_t (*clock)(), const Allocator* allocator, double* ns) {
  Array<float> x(allocator);
  Array<float> r(allocator);
  Array<float> y(allocator);
  Array<char> scratch(allocator);
  Array<char> evict(allocator);
  const SpmmArgs& a = *args[0];
  const size_t slack = 16 * 8;  // whole vectors behind the last column
  const int64_t rows = a.weights[0].rows;
  SRT_RETURN_IF_ERROR(x.resize(static_cast<size_t>(a.batch * a.x_image) + slack));
  SRT_RETURN_IF_ERROR(y.resize(
      static_cast<size_t>(std::max(a.batch * a.y_image, a.groups * rows * a.y_row)) + slack));
  if (a.r_row != 0) SRT_RETURN_IF_ERROR(r.resize(static_cast<size_t>(a.batch * a.r_image) + slack));
  size_t scratch_bytes = 0;
  for (int i = 0; i < count; ++i) {
    scratch_bytes = std::max(
        scratch_bytes, SpmmScratch(*args[i], choices[i].kernel.lanes, choices[i].block_depth));
  }
  SRT_RETURN_IF_ERROR(scratch.resize(scratch_bytes + kCacheLine));
  SRT_RETURN_IF_ERROR(evict.resize(kEvictBytes));
  for (size_t i = 0; i < x.size(); ++i) x[i] = 0.25f + static_cast<float>(i % 31) * 0.03125f;

  void* io[3] = {x.data(), a.r_row != 0 ? r.data() : nullptr, y.data()};
  uint64_t times[kMaxSpmmChoices][kRuns];
  for (int run = -1; run < kRuns; ++run) {
    for (int i = 0; i < count; ++i) {
      volatile char* line = evict.data();
      for (size_t at = 0; at < kEvictBytes; at += kCacheLine) line[at] = static_cast<char>(run);
      ConfuseBranches(static_cast<uint64_t>(run * count + i + 7));
      const uint64_t begin = clock();
      choices[i].kernel.kernel.run(args[i], io, 0, SpmmItems(*args[i]), scratch.data());
      if (run >= 0) times[i][run] = clock() - begin;
    }
  }
  for (int i = 0; i < count; ++i) {
    std::sort(times[i], times[i] + kRuns);
    ns[i] = static_cast<double>(times[i][kRuns / 2]);
  }
  return Status::Ok();
}

}  // namespace sparsert
