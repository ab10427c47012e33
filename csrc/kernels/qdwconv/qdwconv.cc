// The table of qdwconv kernels and the choice among them.
#include "kernels/qdwconv/qdwconv.h"

#include "kernels/select.h"

namespace sparsert {

#define SRT_QDWCONV(function, isa, offset) SRT_DECLARE_KERNEL(function, isa)
#include "kernels/qdwconv/kernels.inc"
#undef SRT_QDWCONV

namespace {

struct Row {
  Kernel kernel;
  int byte_offset;
};

const Row kRows[] = {
#define SRT_QDWCONV(function, isa, offset) {{function, #function, Isa::isa}, offset},
#include "kernels/qdwconv/kernels.inc"
#undef SRT_QDWCONV
};

}  // namespace

bool SelectQdwconv(Isa isa, Kernel* kernel, int* byte_offset) {
  for (const Row& row : kRows) {
    if (!IsaCovers(isa, row.kernel.isa)) continue;
    *kernel = row.kernel;
    *byte_offset = row.byte_offset;
    return true;
  }
  return false;
}

}  // namespace sparsert
