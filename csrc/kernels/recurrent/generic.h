// The steps of recurrent layers over Vec: a lane is an element of the state.
#pragma once

#include "kernels/define.h"
#include "kernels/recurrent/recurrent.h"
#include "simd/vec_math.h"

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

// The functions of the gates; with kUsual f is Sigmoid and the others are Tanh.
template <bool kUsual>
struct GateFunctions {
  explicit GateFunctions(const RecurrentArgs& args)
      : f(args.f.fn), g(args.g.fn), h(args.h.fn), high(Set1(args.clip)), low(Set1(-args.clip)) {}

  Vec Clip(Vec x) const { return Min(high, Max(low, x)); }
  Vec F(Vec x) const {
    if constexpr (kUsual) return Sigmoid(Clip(x));
    return ApplyAny(f, Clip(x), Zero(), Zero());
  }
  Vec G(Vec x) const {
    if constexpr (kUsual) return Tanh(Clip(x));
    return ApplyAny(g, Clip(x), Zero(), Zero());
  }
  Vec H(Vec x) const {
    if constexpr (kUsual) return Tanh(x);
    return ApplyAny(h, x, Zero(), Zero());
  }

  UnaryFn f, g, h;
  Vec high, low;
};

// The products of one chunk of the matrix's rows.
static void MultiplyState(const StateProduct& product, int64_t chunk, float* state, float* result) {
  void* const io[] = {state, nullptr, result};
  product.run(&product.args, io, chunk, chunk + 1, nullptr);
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
  const float* peephole = args.peephole;
  for (int64_t j = 0; j < hidden; j += Vec::kLanes) {
    const Mask lanes = LanesAt(j, hidden);
    Vec input = LoadGate(row, j, lanes);
    Vec output = LoadGate(row, hidden + j, lanes);
    Vec forget = LoadGate(row, 2 * hidden + j, lanes);
    const Vec candidate = LoadGate(row, 3 * hidden + j, lanes);
    Vec cell = LoadMask(row.c + j, lanes);
    if (peephole != nullptr) {
      input = Fma(LoadMask(peephole + j, lanes), cell, input);
      forget = Fma(LoadMask(peephole + 2 * hidden + j, lanes), cell, forget);
    }
    cell = Fma(fn.F(forget), cell, Mul(fn.F(input), fn.G(candidate)));
    if (peephole != nullptr) output = Fma(LoadMask(peephole + hidden + j, lanes), cell, output);
    StoreMask(row.c + j, lanes, cell);
    StoreState(row, j, lanes, Mul(fn.F(output), fn.H(cell)));
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
    for (int64_t chunk = 0; chunk < args.candidate.args.chunks; ++chunk) {
      MultiplyState(args.candidate, chunk, row.c, after_reset);
    }
  }
  for (int64_t j = 0; j < hidden; j += Vec::kLanes) {
    const Mask lanes = LanesAt(j, hidden);
    const Vec update = fn.F(LoadGate(row, j, lanes));
    Vec product = LoadMask(after_reset + j, lanes);
    if (!reset_first) product = Mul(fn.F(LoadGate(row, hidden + j, lanes)), product);
    const Vec candidate = fn.G(Add(LoadMask(row.x + 2 * hidden + j, lanes), product));
    const Vec h = LoadMask(row.h + j, lanes);
    StoreState(row, j, lanes, Fma(update, h, Mul(Sub(Set1(1.0f), update), candidate)));
  }
}

static void StepRnn(const RecurrentArgs& args, const RecurrentRow& row) {
  const GateFunctions<false> fn(args);
  for (int64_t j = 0; j < args.hidden; j += Vec::kLanes) {
    const Mask lanes = LanesAt(j, args.hidden);
    StoreState(row, j, lanes, fn.F(LoadGate(row, j, lanes)));
  }
}

static void StepRow(const RecurrentArgs& args, const RecurrentRow& row) {
  const bool usual = args.f.fn == UnaryFn::kSigmoid && args.g.fn == UnaryFn::kTanh;
  if (args.cell == Cell::kLstm) {
    usual&& args.h.fn == UnaryFn::kTanh ? StepLstm<true>(args, row) : StepLstm<false>(args, row);
  } else if (args.cell == Cell::kGru) {
    usual ? StepGru<true>(args, row) : StepGru<false>(args, row);
  } else {
    StepRnn(args, row);
  }
}

static void CopyState(const void* from, float* to, int64_t n) {
  for (int64_t i = 0; i < n; ++i)
    to[i] = from == nullptr ? 0.0f : static_cast<const float*>(from)[i];
}

static void Recurrent(const void* args_block, void* const* io, int64_t begin, int64_t end,
                      void* scratch) {
  const RecurrentArgs& args = *static_cast<const RecurrentArgs*>(args_block);
  const int64_t hidden = args.hidden;
  const int64_t gates = GatesOf(args.cell) * hidden;
  const int32_t* lengths = static_cast<const int32_t*>(io[3]);
  float* h = static_cast<float*>(scratch);
  float* c = h + args.batch * hidden;
  float* product = c + args.batch * hidden;
  const auto initial = [&](void* states, int64_t item) -> const float* {
    return states == nullptr ? nullptr : static_cast<const float*>(states) + item * hidden;
  };
  for (int64_t item = begin; item < end; ++item) {
    const bool has_steps = lengths == nullptr || lengths[item] > 0;
    CopyState(has_steps ? initial(io[1], item) : nullptr, h + item * hidden, hidden);
    CopyState(has_steps ? initial(io[2], item) : nullptr, c + item * hidden, hidden);
  }
  const auto length_of = [&](int64_t item) -> int64_t {
    return lengths == nullptr || lengths[item] > args.steps ? args.steps : lengths[item];
  };
  for (int64_t step = 0; step < args.steps; ++step) {
    // A chunk of the matrix serves all sequences while it is in cache.
    for (int64_t chunk = 0; chunk < args.state.args.chunks; ++chunk) {
      for (int64_t item = begin; item < end; ++item) {
        if (step >= length_of(item)) continue;
        MultiplyState(args.state, chunk, h + item * hidden, product + item * gates);
      }
    }
    for (int64_t item = begin; item < end; ++item) {
      const int64_t length = length_of(item);
      float* y = static_cast<float*>(io[4]);
      if (step >= length) {
        CopyState(nullptr, y + (step * args.batch + item) * hidden, hidden);
        continue;
      }
      const int64_t at = (args.reverse ? length - 1 - step : step) * args.batch + item;
      StepRow(args, {static_cast<const float*>(io[0]) + at * gates, h + item * hidden,
                     c + item * hidden, product + item * gates, y + at * hidden});
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
