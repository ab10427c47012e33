// IndexFault: where kernels say that an index they read is outside of its dimension.
#pragma once

#include <atomic>
#include <cstdint>

#include "base/arch.h"

namespace sparsert {

// Threads of a step may report at once; the first one stays.
struct IndexFault {
  std::atomic<bool> reported{false};
  int64_t index = 0;
  int64_t low = 0;   // the lowest index that it may be
  int64_t size = 0;  // of the dimension
};

// `fault`: an IndexFault. What is written here is read after the step's threads are done.
SRT_INLINE void ReportIndex(void* fault, int64_t index, int64_t size, int64_t low) {
  IndexFault* to = static_cast<IndexFault*>(fault);
  if (to->reported.exchange(true)) return;
  to->index = index;
  to->size = size;
  to->low = low;
}

}  // namespace sparsert
