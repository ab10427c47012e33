// Quantize: selection.
#include "kernels/quantize/quantize.h"

#include <cstring>

#include "kernels/select.h"

namespace sparsert {
#define SRT_KERNEL SRT_DECLARE_KERNEL
#include "kernels/quantize/kernels.inc"

static const Kernel kKernels[] = {
#define SRT_KERNEL SRT_KERNEL_ROW
#include "kernels/quantize/kernels.inc"
};

bool SelectQuantize(QuantizeOp op, Isa isa, Kernel* kernel) {
  static const char* const kPrefixes[] = {"quantize_",     "dequantize_", "qadd_",    "qlookup_",
                                          "qelementwise_", "qrange_",     "qdynamic_"};
  const char* prefix = kPrefixes[static_cast<int>(op)];
  for (const Kernel& row : kKernels) {
    if (!IsaCovers(isa, row.isa) || strncmp(row.name, prefix, strlen(prefix)) != 0) continue;
    *kernel = row;
    return true;
  }
  return false;
}

}  // namespace sparsert
