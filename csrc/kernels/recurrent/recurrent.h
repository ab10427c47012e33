// Recurrent: the steps of an LSTM, GRU or plain recurrent layer in one direction. The products of
// the weights with the inputs are made before; here the state meets its weights step by step.
#pragma once

#include "base/functions.h"
#include "kernels/kernel.h"
#include "kernels/spmv/spmv.h"

namespace sparsert {

// A matrix times the state of one sequence.
struct StateProduct {
  KernelFn run = nullptr;  // of spmv
  SpmvArgs args;
};

// io: X [steps][batch][gates][hidden], initial h and c [batch][hidden], lengths [batch] (i32; the
// last three may be nullptr), Y [steps][batch][hidden], the last h and c (may be nullptr).
//
// A sequence shorter than `steps` has zeros in the rest of Y, and no steps there; one without steps
// has zeros as its last h and c.
struct RecurrentArgs {
  Cell cell = Cell::kRnn;
  bool reverse = false;  // from the last step of each sequence to its first
  int64_t steps = 0, batch = 0, hidden = 0;
  float clip = 0.0f;       // bound of what f and g take; infinity: none
  Activation f, g, h;      // as ONNX names them; g: LSTM and GRU, h: LSTM
  StateProduct state;      // all gates
  StateProduct candidate;  // GRU: the last gate if it takes the state after the reset; or unused
  const float* peephole = nullptr;  // LSTM: [i, o, f][hidden], or nullptr
};

constexpr int64_t GatesOf(Cell cell) {
  return cell == Cell::kLstm ? 4 : cell == Cell::kGru ? 3 : 1;
}

// A work item is a sequence.
inline int64_t RecurrentItems(const RecurrentArgs& args) { return args.batch; }

size_t RecurrentScratch(const RecurrentArgs& args);

bool SelectRecurrent(const RecurrentArgs& args, Isa isa, Kernel* kernel);

}  // namespace sparsert
