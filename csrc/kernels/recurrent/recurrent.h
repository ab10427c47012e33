// Recurrent: the steps of an LSTM, GRU or plain recurrent layer in one direction. The products of
// the weights with the inputs are made before; here the state meets its weights step by step.
//
// Sequences either go one after the other, a lane being an element of the state and the product one
// of spmv; or side by side in groups, a lane being a sequence and the product one of spmm.
#pragma once

#include "base/functions.h"
#include "kernels/kernel.h"
#include "kernels/spmm/spmm.h"
#include "kernels/spmv/spmv.h"

namespace sparsert {

// A matrix times the state of one sequence, or of a group of them.
struct StateProduct {
  KernelFn run = nullptr;  // of spmv or spmm
  SpmvArgs vector;
  // `columns` is that of a group, x_row and y_row are its column_row.
  const SpmmArgs* columns = nullptr;
  size_t columns_scratch = 0;
};

// io: X [steps][batch][gates][hidden], or [steps][batch][width] with a projection; initial h and c
// [batch][hidden], lengths [batch] (i32; the last three may be nullptr), Y [steps][batch][hidden],
// the last h and c (may be nullptr).
//
// A sequence shorter than `steps` has zeros in the rest of Y, and no steps there; one without steps
// has zeros as its last h and c.
struct RecurrentArgs {
  Cell cell = Cell::kRnn;
  bool reverse = false;  // from the last step of each sequence to its first
  bool couples = false;  // LSTM: the forget gate is 1 - the input gate
  int64_t steps = 0, batch = 0, hidden = 0;
  float clip = 0.0f;       // bound of what f and g take; infinity: none
  Activation f, g, h;      // as ONNX names them; g: LSTM and GRU, h: LSTM
  StateProduct state;      // all gates
  StateProduct candidate;  // GRU: the last gate if it takes the state after the reset; or unused
  const float* peephole = nullptr;  // LSTM: [i, o, f][hidden], or nullptr
  int64_t group = 0;                // sequences side by side; 0: one after the other
  int64_t column_row = 0;           // floats between the rows of a group's columns, whole vectors

  // Of groups: the products of the inputs with their weights, made for a few steps at a time, so
  // that they are still in cache when the steps come to them. Unused: X holds them already.
  StateProduct projection;
  int64_t width = 0;           // elements of an input
  int64_t chunk_steps = 0;     // that are projected together
  int64_t projection_row = 0;  // floats between rows; a vector more than chunk_steps * group
};

constexpr int64_t GatesOf(Cell cell) {
  return cell == Cell::kLstm ? 4 : cell == Cell::kGru ? 3 : 1;
}

// A work item is a sequence, or a group of them.
inline int64_t RecurrentItems(const RecurrentArgs& args) {
  return args.group == 0 ? args.batch : (args.batch + args.group - 1) / args.group;
}

size_t RecurrentScratch(const RecurrentArgs& args);

bool SelectRecurrent(const RecurrentArgs& args, Isa isa, Kernel* kernel);

}  // namespace sparsert
