// Times candidates on buffers of the layer's own size.
#pragma once

#include "kernels/kernel.h"
#include "plan/weights.h"

namespace sparsert {

// Buffers that the parts of a trial read and write, by role: a layer's x, r and y, and the same
// with the vectors of a batch side by side.
enum TrialBuffer : int8_t {
  kNoBuffer = -1,
  kTrialX = 0,
  kTrialR = 1,
  kTrialY = 2,
  kTrialColumnsX = 3,
  kTrialColumnsR = 4,
  kTrialColumnsY = 5,
  kTrialBuffers = 6,
};

// A candidate made ready to run: its kernels in order.
struct Trial {
  static constexpr int kMaxTrialIo = 7;
  struct Part {
    Kernel kernel;
    const void* args = nullptr;
    TrialBuffer io[kMaxTrialIo] = {kNoBuffer, kNoBuffer, kNoBuffer, kNoBuffer,
                                   kNoBuffer, kNoBuffer, kNoBuffer};
    int io_count = 0;
    int64_t items = 0;
    size_t scratch_bytes = 0;
  };
  static constexpr int kMaxParts = 8;

  PackKey keys[2];     // of the weights packed for it
  double share = 1.0;  // of the layer's work; less than all of it is run as it is
  // Run once before it is timed: its weights evict themselves, and the first run after others,
  // whose pages the core has yet to find, says little of the next ones.
  bool settles = false;
  Part parts[kMaxParts];
  int part_count = 0;
};

// The memory that trials run on; it serves layer after layer.
class TrialBench {
 public:
  explicit TrialBench(const Allocator* allocator);

  // Grows the buffers to [kTrialBuffers] floats each: what the next trials use.
  Status Reserve(const size_t* floats);

  // The whole model stays in cache from run to run.
  void set_warm(bool warm) { warm_ = warm; }

  // Before each round of trials, which have weights and code of their own: evicts the cache lines
  // of weights and makes the branch predictor forget the layer, as the rest of a model would do.
  // Nothing where the model stays warm.
  void Forget();

  // Nanoseconds of one run on one thread: its weights cold, its inputs as if layers before had just
  // written them; `far`: nullptr, or whose packings of the trial come from main memory; or, warm,
  // the mean of a few runs after another one. Of a trial of one part only the first `share` of its
  // items are run and the time is scaled up.
  Status Time(const Trial& trial, const Weights* far, double share, uint64_t (*clock)(),
              double* ns);

 private:
  void ReadInput(TrialBuffer buffer);
  void RunOnce(const Trial& trial, int64_t first_items);

  Array<float> buffers_[kTrialBuffers];
  size_t used_[kTrialBuffers] = {};  // floats of the current layer
  Array<char> scratch_;
  Array<char> evict_;
  uint64_t runs_ = 0;
  bool warm_ = false;
};

}  // namespace sparsert
