// Quantize: selection, and the lookup, which is the same on every instruction set.
#include "kernels/quantize/quantize.h"

#include <cstring>

#include "kernels/select.h"

namespace sparsert {
namespace {

void LookUp(const void* args_block, void* const* io, int64_t begin, int64_t end, void*) {
  const QuantizeArgs& a = *static_cast<const QuantizeArgs*>(args_block);
  for (int64_t item = begin; item < end; ++item) {
    const int64_t image = item / a.planes;
    const int64_t plane = item % a.planes;
    const uint8_t* x =
        static_cast<const uint8_t*>(io[0]) + 4 * (image * a.x_image + plane * a.x_plane);
    uint8_t* y = static_cast<uint8_t*>(io[1]) + 4 * (image * a.y_image + plane * a.y_plane);
    for (int64_t i = 0; i < 4 * a.columns; ++i) y[i] = a.table[x[i]];
  }
}

}  // namespace

#define SRT_KERNEL SRT_DECLARE_KERNEL
#include "kernels/quantize/kernels.inc"

static const Kernel kKernels[] = {
#define SRT_KERNEL SRT_KERNEL_ROW
#include "kernels/quantize/kernels.inc"
};

bool SelectQuantize(QuantizeOp op, Isa isa, Kernel* kernel) {
  static const char* const kPrefixes[] = {"quantize_", "dequantize_", "qadd_"};
  if (op == QuantizeOp::kLookup) {
    *kernel = {&LookUp, "qlookup_i8_scalar", Isa::kScalar};
    return true;
  }
  const char* prefix = kPrefixes[static_cast<int>(op)];
  for (const Kernel& row : kKernels) {
    if (!IsaCovers(isa, row.isa) || strncmp(row.name, prefix, strlen(prefix)) != 0) continue;
    *kernel = row;
    return true;
  }
  return false;
}

}  // namespace sparsert
