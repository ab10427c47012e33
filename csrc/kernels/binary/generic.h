// Binary over Vec: a row function per function, activation and kind of operands.
#pragma once

#include "kernels/binary/binary.h"
#include "kernels/define.h"
#include "simd/vec_math.h"

namespace sparsert {
namespace SRT_ISA {

using BinaryRowFn = void (*)(const float* a, const float* b, float* y, int64_t n,
                             const Activation& act);

// Whether an operand runs along the row or is one number for all of it.
enum class Operands { kBoth, kScalarA, kScalarB };

template <BinaryFn Fn>
inline Vec Combine(Vec a, Vec b) {
  if constexpr (Fn == BinaryFn::kAdd) {
    return Add(a, b);
  } else if constexpr (Fn == BinaryFn::kSub) {
    return Sub(a, b);
  } else if constexpr (Fn == BinaryFn::kMul) {
    return Mul(a, b);
  } else if constexpr (Fn == BinaryFn::kDiv) {
    return Div(a, b);
  } else if constexpr (Fn == BinaryFn::kMin) {
    return Select(IsNan(a), a, Min(a, b));
  } else {
    static_assert(Fn == BinaryFn::kMax, "a function without a formula");
    return Select(IsNan(a), a, Max(a, b));
  }
}

static void ActivateRow(float* y, int64_t n, const Activation& act);

// kAnyFn: a pass of its own, for what lies in L1.
template <BinaryFn Fn, UnaryFn Act, Operands Kind>
static void BinaryRow(const float* a, const float* b, float* y, int64_t n, const Activation& act) {
  if constexpr (Vec::kShortCode && Act == kAnyFn) {
    constexpr int64_t kPart = 1024;
    for (int64_t i = 0; i < n; i += kPart) {
      const int64_t part = n - i < kPart ? n - i : kPart;
      const float* from_a = Kind == Operands::kScalarA ? a : a + i;
      const float* from_b = Kind == Operands::kScalarB ? b : b + i;
      BinaryRow<Fn, UnaryFn::kNone, Kind>(from_a, from_b, y + i, part, act);
      ActivateRow(y + i, part, act);
    }
    return;
  }
  const ActivationVec av = MakeActivation(act);
  const Vec all_a = Set1(a[0]);
  const Vec all_b = Set1(b[0]);
  int64_t i = 0;
  for (; i + Vec::kLanes <= n; i += Vec::kLanes) {
    const Vec va = Kind == Operands::kScalarA ? all_a : LoadU(a + i);
    const Vec vb = Kind == Operands::kScalarB ? all_b : LoadU(b + i);
    StoreU(y + i, Activate<Act>(Combine<Fn>(va, vb), av));
  }
  if (i < n) {
    const Mask tail = FirstN(static_cast<int>(n - i));
    const Vec va = Kind == Operands::kScalarA ? all_a : LoadMask(a + i, tail);
    const Vec vb = Kind == Operands::kScalarB ? all_b : LoadMask(b + i, tail);
    StoreMask(y + i, tail, Activate<Act>(Combine<Fn>(va, vb), av));
  }
}

// x^e for the exponents that need no powf: true when e is one of them.
static bool EasyPowRow(const float* x, float e, float* y, int64_t n) {
  if (e != 1.0f && e != 2.0f && e != 3.0f && e != -1.0f && e != 0.5f) return false;
  for (int64_t i = 0; i < n; i += Vec::kLanes) {
    const Mask m = FirstN(n - i < Vec::kLanes ? static_cast<int>(n - i) : Vec::kLanes);
    const Vec v = LoadMask(x + i, m);
    Vec r = v;
    if (e == 2.0f) r = Mul(v, v);
    if (e == 3.0f) r = Mul(Mul(v, v), v);
    if (e == -1.0f) r = Div(Set1(1.0f), v);
    if (e == 0.5f) {  // powf(-inf, 0.5) is +inf and powf(-0, 0.5) is +0
      r = Sqrt(Add(v, Zero()));
      r = Select(Equal(v, Set1(-__builtin_inff())), Set1(__builtin_inff()), r);
    }
    StoreMask(y + i, m, r);
  }
  return true;
}

static void ActivateRow(float* y, int64_t n, const Activation& act) {
  if (act.fn == UnaryFn::kNone) return;
  const int64_t whole = n / Vec::kLanes;
  if (Vec::kShortCode && whole > 0) {
    SRT_VEC_ISA::ApplyToVectors(act, y, static_cast<int>(whole), Vec::kLanes);
    y += whole * Vec::kLanes;
    n -= whole * Vec::kLanes;
  }
  const ActivationVec av = MakeActivation(act);
  for (int64_t i = 0; i < n; i += Vec::kLanes) {
    const Mask m = FirstN(n - i < Vec::kLanes ? static_cast<int>(n - i) : Vec::kLanes);
    StoreMask(y + i, m, Activate<kAnyFn>(LoadMask(y + i, m), av));
  }
}

template <Operands Kind>
static void PowRow(const float* a, const float* b, float* y, int64_t n, const Activation& act) {
  if (Kind != Operands::kScalarB || !EasyPowRow(a, b[0], y, n)) {
    const float first_a = a[0];
    const float first_b = b[0];
    for (int64_t i = 0; i < n; ++i) {
      y[i] = ::powf(Kind == Operands::kScalarA ? first_a : a[i],
                    Kind == Operands::kScalarB ? first_b : b[i]);
    }
  }
  ActivateRow(y, n, act);
}

template <bool kSignOfB, Operands Kind>
static void ModRow(const float* a, const float* b, float* y, int64_t n, const Activation& act) {
  const float first_a = a[0];
  const float first_b = b[0];
  for (int64_t i = 0; i < n; ++i) {
    const float divisor = Kind == Operands::kScalarB ? first_b : b[i];
    float r = ::fmodf(Kind == Operands::kScalarA ? first_a : a[i], divisor);
    if (kSignOfB && r != 0.0f && (r < 0.0f) != (divisor < 0.0f)) r += divisor;
    y[i] = r;
  }
  ActivateRow(y, n, act);
}

template <BinaryFn Fn, Operands Kind>
static BinaryRowFn BinaryRowOfAct(UnaryFn act) {
  if constexpr (Vec::kShortCode) {
    return act == UnaryFn::kNone ? BinaryRow<Fn, UnaryFn::kNone, Kind>
                                 : BinaryRow<Fn, kAnyFn, Kind>;
  } else {
    SRT_DISPATCH_ACTIVATION(act, F, return BinaryRow<Fn, F, Kind>)
    return nullptr;
  }
}

template <Operands Kind>
static BinaryRowFn BinaryRowOf(BinaryFn fn, UnaryFn act) {
  switch (fn) {
    case BinaryFn::kAdd:
      return BinaryRowOfAct<BinaryFn::kAdd, Kind>(act);
    case BinaryFn::kSub:
      return BinaryRowOfAct<BinaryFn::kSub, Kind>(act);
    case BinaryFn::kMul:
      return BinaryRowOfAct<BinaryFn::kMul, Kind>(act);
    case BinaryFn::kDiv:
      return BinaryRowOfAct<BinaryFn::kDiv, Kind>(act);
    case BinaryFn::kMin:
      return BinaryRowOfAct<BinaryFn::kMin, Kind>(act);
    case BinaryFn::kMax:
      return BinaryRowOfAct<BinaryFn::kMax, Kind>(act);
    case BinaryFn::kMod:
      return ModRow<true, Kind>;
    case BinaryFn::kFmod:
      return ModRow<false, Kind>;
    default:
      return PowRow<Kind>;
  }
}

static void Binary(const void* args_block, void* const* io, int64_t begin, int64_t end, void*) {
  const BinaryArgs& args = *static_cast<const BinaryArgs*>(args_block);
  const float* a = static_cast<const float*>(io[0]);
  const float* b = static_cast<const float*>(io[1]);
  float* y = static_cast<float*>(io[2]);
  const UnaryFn act = args.act.fn;
  BinaryRowFn row = nullptr;
  if (args.loop.row_strides[1] == 0) {
    row = BinaryRowOf<Operands::kScalarA>(args.fn, act);
  } else if (args.loop.row_strides[2] == 0) {
    row = BinaryRowOf<Operands::kScalarB>(args.fn, act);
  } else {
    row = BinaryRowOf<Operands::kBoth>(args.fn, act);
  }
  ForEachRow(args.loop, begin, end, [&](const int64_t* offsets, int64_t n) {
    row(a + offsets[1], b + offsets[2], y + offsets[0], n, args.act);
  });
}

}  // namespace SRT_ISA
}  // namespace sparsert
