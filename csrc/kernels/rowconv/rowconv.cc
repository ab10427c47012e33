// The table of rowconv kernels and the choice among them.
#include "kernels/rowconv/rowconv.h"

#include "kernels/select.h"

namespace sparsert {

#define SRT_ROWCONV(isa, IsaId)                                                               \
  namespace isa {                                                                             \
  void Rowconv(const void* args, void* const* io, int64_t begin, int64_t end, void* scratch); \
  }
#include "kernels/rowconv/kernels.inc"
#undef SRT_ROWCONV

bool SelectRowconv(Isa isa, Kernel* kernel) {
  static const Kernel kRows[] = {
#define SRT_ROWCONV(isa, IsaId) {&isa::Rowconv, "rowconv_dense_f32_" #isa, Isa::k##IsaId},
#include "kernels/rowconv/kernels.inc"
#undef SRT_ROWCONV
  };
  return SelectKernel(kRows, isa, kernel);
}

}  // namespace sparsert
