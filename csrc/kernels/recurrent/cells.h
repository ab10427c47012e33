// The arithmetic of the cells over Vec; what a lane is, is the caller's business.
// Included once per instruction set, after its vec_*.h, with SRT_ISA defined.
#pragma once

#include "kernels/recurrent/recurrent.h"
#include "simd/vec_math.h"

namespace sparsert {
namespace SRT_ISA {

// The functions of the gates; with kUsual f is Sigmoid and the others are Tanh.
template <bool kUsual>
struct GateFunctions {
  explicit GateFunctions(const RecurrentArgs& args)
      : f(MakeActivation(args.f)),
        g(MakeActivation(args.g)),
        h(MakeActivation(args.h)),
        high(Set1(args.clip)),
        low(Set1(-args.clip)),
        couples(args.couples),
        sees(args.peephole != nullptr) {}

  Vec Clip(Vec x) const { return Min(high, Max(low, x)); }
  Vec F(Vec x) const {
    if constexpr (kUsual) return Sigmoid(Clip(x));
    return Activate<kAnyFn>(Clip(x), f);
  }
  Vec G(Vec x) const {
    if constexpr (kUsual) return Tanh(Clip(x));
    return Activate<kAnyFn>(Clip(x), g);
  }
  Vec H(Vec x) const {
    if constexpr (kUsual) return Tanh(x);
    return Activate<kAnyFn>(x, h);
  }

  ActivationVec f, g, h;
  Vec high, low;
  bool couples, sees;
};

inline bool IsUsual(const RecurrentArgs& args) {
  return args.f.fn == UnaryFn::kSigmoid &&
         (args.cell == Cell::kRnn || args.g.fn == UnaryFn::kTanh) &&
         (args.cell != Cell::kLstm || args.h.fn == UnaryFn::kTanh);
}

// What an LSTM's gates see of its cell through peepholes.
struct Peepholes {
  Vec input, output, forget;
};

// Of the sums of the gates in ONNX's order and the cell; returns the state and renews the cell.
template <bool kUsual>
SRT_INLINE Vec LstmCell(const GateFunctions<kUsual>& fn, const Vec (&gate)[4], const Peepholes& see,
                        Vec* cell) {
  const auto sum = [&](int g, Vec weight) {
    return fn.sees ? Fma(weight, *cell, gate[g]) : gate[g];
  };
  const Vec input = fn.F(sum(0, see.input));
  const Vec forget = fn.couples ? Sub(Set1(1.0f), input) : fn.F(sum(2, see.forget));
  *cell = Fma(forget, *cell, Mul(input, fn.G(gate[3])));
  return Mul(fn.F(sum(1, see.output)), fn.H(*cell));
}

// Of the sum of the update gate, the candidate's input and its product, which a reset gate has
// met already; returns the state.
template <bool kUsual>
SRT_INLINE Vec GruCell(const GateFunctions<kUsual>& fn, Vec update_sum, Vec candidate_sum, Vec h) {
  const Vec update = fn.F(update_sum);
  return Fma(update, h, Mul(Sub(Set1(1.0f), update), fn.G(candidate_sum)));
}

}  // namespace SRT_ISA
}  // namespace sparsert
