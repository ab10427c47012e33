// Trilu: selection and the kernel itself.
#include "kernels/trilu/trilu.h"

#include <cstring>

#include "kernels/select.h"

namespace sparsert {

#define SRT_KERNEL SRT_DECLARE_KERNEL
#include "kernels/trilu/kernels.inc"

static const Kernel kKernels[] = {
#define SRT_KERNEL SRT_KERNEL_ROW
#include "kernels/trilu/kernels.inc"
};

void trilu_any_scalar(const void* args_block, void* const* io, int64_t begin, int64_t end, void*) {
  const TriluArgs& args = *static_cast<const TriluArgs*>(args_block);
  const size_t size = static_cast<size_t>(args.element_bytes);
  const size_t row_bytes = static_cast<size_t>(args.cols) * size;
  for (int64_t row = begin; row < end; ++row) {
    const char* x = static_cast<const char*>(io[0]) + static_cast<size_t>(row) * row_bytes;
    char* y = static_cast<char*>(io[1]) + static_cast<size_t>(row) * row_bytes;
    // Columns [0, cut) and [cut, cols): the one part is kept, the other is zero.
    int64_t cut = row % args.rows + args.k + (args.upper ? 0 : 1);
    cut = cut < 0 ? 0 : (cut > args.cols ? args.cols : cut);
    const size_t head = static_cast<size_t>(cut) * size;
    if (args.upper) {
      memset(y, 0, head);
      memcpy(y + head, x + head, row_bytes - head);
    } else {
      memcpy(y, x, head);
      memset(y + head, 0, row_bytes - head);
    }
  }
}

int64_t TriluItems(const TriluArgs& args) { return args.matrices * args.rows; }

bool SelectTrilu(const TriluArgs&, Isa isa, Kernel* kernel) {
  return SelectKernel(kKernels, isa, kernel);
}

}  // namespace sparsert
