// The steps of recurrent layers over Vec.
#pragma once

#include "kernels/define.h"
#include "kernels/recurrent/groups.h"

namespace sparsert {
namespace SRT_ISA {

static void Recurrent(const void* args_block, void* const* io, int64_t begin, int64_t end,
                      void* scratch) {
  const RecurrentArgs& args = *static_cast<const RecurrentArgs*>(args_block);
  if (args.group == 0) {
    RunSequences(args, io, begin, end, static_cast<float*>(scratch));
    return;
  }
  for (int64_t item = begin; item < end; ++item) {
    RecurrentGroup(args, io, item, static_cast<float*>(scratch)).Run();
  }
}

}  // namespace SRT_ISA
}  // namespace sparsert
