// Timing of candidates at plan time.
#include "plan/measure.h"

#include <algorithm>

namespace sparsert {
namespace {

constexpr int kRuns = 5;
// Larger than the L2 of most cores: reading it evicts what a candidate left there, as the other
// layers of the model would.
constexpr size_t kEvictBytes = 4 << 20;

}  // namespace

Status MeasureSpmm(const SpmmArgs& a, const SpmmChoice& choice, uint64_t (*clock)(),
                   const Allocator* allocator, double* ns) {
  Array<float> x(allocator);
  Array<float> r(allocator);
  Array<float> y(allocator);
  Array<char> scratch(allocator);
  Array<char> evict(allocator);
  const size_t slack = 16 * 8;  // whole vectors behind the last column
  const int64_t rows = a.weights[0].rows;
  SRT_RETURN_IF_ERROR(x.resize(static_cast<size_t>(a.batch * a.x_image) + slack));
  SRT_RETURN_IF_ERROR(y.resize(
      static_cast<size_t>(std::max(a.batch * a.y_image, a.groups * rows * a.y_row)) + slack));
  if (a.r_row != 0) SRT_RETURN_IF_ERROR(r.resize(static_cast<size_t>(a.batch * a.r_image) + slack));
  SRT_RETURN_IF_ERROR(
      scratch.resize(SpmmScratch(a, choice.kernel.lanes, choice.block_depth) + kCacheLine));
  SRT_RETURN_IF_ERROR(evict.resize(kEvictBytes));
  for (size_t i = 0; i < x.size(); ++i) x[i] = 0.25f + static_cast<float>(i % 31) * 0.03125f;

  void* io[3] = {x.data(), a.r_row != 0 ? r.data() : nullptr, y.data()};
  uint64_t times[kRuns];
  for (int run = -1; run < kRuns; ++run) {
    volatile char* line = evict.data();
    for (size_t i = 0; i < kEvictBytes; i += kCacheLine) line[i] = static_cast<char>(run);
    const uint64_t begin = clock();
    choice.kernel.kernel.run(&a, io, 0, SpmmItems(a), scratch.data());
    if (run >= 0) times[run] = clock() - begin;
  }
  std::sort(times, times + kRuns);
  *ns = static_cast<double>(times[kRuns / 2]);
  return Status::Ok();
}

}  // namespace sparsert
