// Recurrent: selection.
#include "kernels/recurrent/recurrent.h"

#include "kernels/select.h"

namespace sparsert {

#define SRT_KERNEL SRT_DECLARE_KERNEL
#include "kernels/recurrent/kernels.inc"

static const Kernel kKernels[] = {
#define SRT_KERNEL SRT_KERNEL_ROW
#include "kernels/recurrent/kernels.inc"
};

size_t RecurrentScratch(const RecurrentArgs& args) {
  // Of each sequence h, a second state and the products of all gates.
  const int64_t vectors = 2 + GatesOf(args.cell);
  const int64_t sequences = args.group == 0 ? args.batch : args.column_row;
  const size_t states = static_cast<size_t>(sequences * vectors * args.hidden) * sizeof(float);
  const int64_t inputs = args.projection_row * (args.width + GatesOf(args.cell) * args.hidden);
  const StateProduct* const products[] = {&args.state, &args.candidate, &args.projection};
  size_t most = 0;
  for (const StateProduct* p : products) {
    if (p->columns_scratch > most) most = p->columns_scratch;
  }
  return states + static_cast<size_t>(inputs) * sizeof(float) + most;
}

bool SelectRecurrent(const RecurrentArgs&, Isa isa, Kernel* kernel) {
  return SelectKernel(kKernels, isa, kernel);
}

}  // namespace sparsert
