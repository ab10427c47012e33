// The steps of recurrent layers, one sequence after the other: a lane is an element of the state.
// Included once per instruction set, after its vec_*.h, with SRT_ISA defined.
#pragma once

#include "kernels/recurrent/cells.h"

namespace sparsert {
namespace SRT_ISA {

// One sequence at one step.
struct RecurrentRow {
  const float* x;  // [gates][hidden]
  float* h;
  float* c;        // LSTM: the cell; GRU: the state after the reset
  float* product;  // [gates][hidden]
  float* y;
};

// The products of one chunk of the matrix's rows.
static void MultiplyState(const StateProduct& product, int64_t chunk, float* state, float* result) {
  void* const io[] = {state, nullptr, result};
  product.run(&product.vector, io, chunk, chunk + 1, nullptr);
}

// The first lanes of what is left of `hidden` elements behind element j.
static Mask LanesAt(int64_t j, int64_t hidden) {
  return FirstN(static_cast<int>(hidden - j < Vec::kLanes ? hidden - j : Vec::kLanes));
}

// What comes from the input and from the state for a gate.
static Vec LoadGate(const RecurrentRow& row, int64_t at, Mask lanes) {
  return Add(LoadMask(row.x + at, lanes), LoadMask(row.product + at, lanes));
}

static void StoreState(const RecurrentRow& row, int64_t j, Mask lanes, Vec h) {
  StoreMask(row.h + j, lanes, h);
  StoreMask(row.y + j, lanes, h);
}

template <bool kUsual>
static void StepLstm(const RecurrentArgs& args, const RecurrentRow& row) {
  const GateFunctions<kUsual> fn(args);
  const int64_t hidden = args.hidden;
  Peepholes see = {Zero(), Zero(), Zero()};
  for (int64_t j = 0; j < hidden; j += Vec::kLanes) {
    const Mask lanes = LanesAt(j, hidden);
    Vec gate[4];
    for (int g = 0; g < 4; ++g) gate[g] = LoadGate(row, g * hidden + j, lanes);
    if (args.peephole != nullptr) {
      const float* peephole = args.peephole + j;
      see = {LoadMask(peephole, lanes), LoadMask(peephole + hidden, lanes),
             LoadMask(peephole + 2 * hidden, lanes)};
    }
    Vec cell = LoadMask(row.c + j, lanes);
    const Vec h = LstmCell(fn, gate, see, &cell);
    StoreMask(row.c + j, lanes, cell);
    StoreState(row, j, lanes, h);
  }
}

template <bool kUsual>
static void StepGru(const RecurrentArgs& args, const RecurrentRow& row) {
  const GateFunctions<kUsual> fn(args);
  const int64_t hidden = args.hidden;
  float* after_reset = row.product + 2 * hidden;
  const bool reset_first = args.candidate.run != nullptr;
  if (reset_first) {
    for (int64_t j = 0; j < hidden; j += Vec::kLanes) {
      const Mask lanes = LanesAt(j, hidden);
      const Vec reset = fn.F(LoadGate(row, hidden + j, lanes));
      StoreMask(row.c + j, lanes, Mul(reset, LoadMask(row.h + j, lanes)));
    }
    for (int64_t chunk = 0; chunk < args.candidate.vector.chunks; ++chunk) {
      MultiplyState(args.candidate, chunk, row.c, after_reset);
    }
  }
  for (int64_t j = 0; j < hidden; j += Vec::kLanes) {
    const Mask lanes = LanesAt(j, hidden);
    Vec product = LoadMask(after_reset + j, lanes);
    if (!reset_first) product = Mul(fn.F(LoadGate(row, hidden + j, lanes)), product);
    const Vec candidate = Add(LoadMask(row.x + 2 * hidden + j, lanes), product);
    const Vec h = LoadMask(row.h + j, lanes);
    StoreState(row, j, lanes, GruCell(fn, LoadGate(row, j, lanes), candidate, h));
  }
}

template <bool kUsual>
static void StepRnn(const RecurrentArgs& args, const RecurrentRow& row) {
  const GateFunctions<kUsual> fn(args);
  for (int64_t j = 0; j < args.hidden; j += Vec::kLanes) {
    const Mask lanes = LanesAt(j, args.hidden);
    StoreState(row, j, lanes, fn.F(LoadGate(row, j, lanes)));
  }
}

template <bool kUsual>
static void StepRow(const RecurrentArgs& args, const RecurrentRow& row) {
  if (args.cell == Cell::kLstm) {
    StepLstm<kUsual>(args, row);
  } else if (args.cell == Cell::kGru) {
    StepGru<kUsual>(args, row);
  } else {
    StepRnn<kUsual>(args, row);
  }
}

static void CopyState(const void* from, float* to, int64_t n) {
  for (int64_t i = 0; i < n; ++i)
    to[i] = from == nullptr ? 0.0f : static_cast<const float*>(from)[i];
}

// Steps that sequence `item` has.
static int64_t StepsOf(const RecurrentArgs& args, const void* lengths, int64_t item) {
  if (lengths == nullptr) return args.steps;
  const int64_t length = static_cast<const int32_t*>(lengths)[item];
  return length < 0 ? 0 : length > args.steps ? args.steps : length;
}

static void RunSequences(const RecurrentArgs& args, void* const* io, int64_t begin, int64_t end,
                         float* scratch) {
  const int64_t hidden = args.hidden;
  const int64_t gates = GatesOf(args.cell) * hidden;
  const bool usual = IsUsual(args);
  float* h = scratch;
  float* c = h + args.batch * hidden;
  float* product = c + args.batch * hidden;
  const auto initial = [&](void* states, int64_t item) -> const float* {
    return states == nullptr ? nullptr : static_cast<const float*>(states) + item * hidden;
  };
  for (int64_t item = begin; item < end; ++item) {
    const bool has_steps = io[3] == nullptr || StepsOf(args, io[3], item) > 0;
    CopyState(has_steps ? initial(io[1], item) : nullptr, h + item * hidden, hidden);
    CopyState(has_steps ? initial(io[2], item) : nullptr, c + item * hidden, hidden);
  }
  for (int64_t step = 0; step < args.steps; ++step) {
    // A chunk of the matrix serves all sequences while it is in cache. Every other step begins
    // where the one before has ended: of a matrix larger than the cache, that is still there.
    const int64_t chunks = args.state.vector.chunks;
    for (int64_t i = 0; i < chunks; ++i) {
      const int64_t chunk = step % 2 == 0 ? i : chunks - 1 - i;
      for (int64_t item = begin; item < end; ++item) {
        if (step >= StepsOf(args, io[3], item)) continue;
        MultiplyState(args.state, chunk, h + item * hidden, product + item * gates);
      }
    }
    for (int64_t item = begin; item < end; ++item) {
      const int64_t length = StepsOf(args, io[3], item);
      float* y = static_cast<float*>(io[4]);
      if (step >= length) {
        CopyState(nullptr, y + (step * args.batch + item) * hidden, hidden);
        continue;
      }
      const int64_t at = (args.reverse ? length - 1 - step : step) * args.batch + item;
      const RecurrentRow row = {static_cast<const float*>(io[0]) + at * gates, h + item * hidden,
                                c + item * hidden, product + item * gates, y + at * hidden};
      usual ? StepRow<true>(args, row) : StepRow<false>(args, row);
    }
  }
  for (int64_t item = begin; item < end; ++item) {
    const int64_t at = item * hidden;
    if (io[5] != nullptr) CopyState(h + at, static_cast<float*>(io[5]) + at, hidden);
    if (io[6] != nullptr) CopyState(c + at, static_cast<float*>(io[6]) + at, hidden);
  }
}

}  // namespace SRT_ISA
}  // namespace sparsert
