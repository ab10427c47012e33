// Elementary and activation functions over Vec. Include after one vec_<isa>.h, with SRT_ISA
// defined.
//
// Relative error below 1e-6 against the exact result (Sin and Cos: absolute). NaN propagates,
// infinities give their limits, and results that underflow are rounded to denormals or zero;
// Sigmoid and Silu are 0 below 3e-37.
#pragma once

#ifndef SRT_ISA
#error "define SRT_ISA and include a simd/vec_<isa>.h first"
#endif

#include <math.h>

#include <cstdint>

#include "base/arch.h"
#include "base/functions.h"

namespace sparsert {
namespace SRT_ISA {

// ---- exponentials. Min and Max return their second operand when one is NaN, hence the order.

// The integer n nearest to x / ln(2): adding 1.5 * 2^23 rounds, half to even.
inline Vec ExpExponent(Vec x) {
  const Vec magic = Set1(12582912.0f);
  return Sub(Fma(x, Set1(1.44269504f), magic), magic);
}

// x - n * ln(2), with ln(2) in two parts.
inline Vec ExpRemainder(Vec x, Vec n) {
  return Fnma(n, Set1(-2.12194440e-4f), Fnma(n, Set1(0.693359375f), x));
}

// exp(r) - 1 for |r| <= ln(2) / 2.
inline Vec ExpM1Reduced(Vec r) {
  Vec p = Set1(1.9875691500e-4f);
  p = Fma(p, r, Set1(1.3981999507e-3f));
  p = Fma(p, r, Set1(8.3334519073e-3f));
  p = Fma(p, r, Set1(4.1665795894e-2f));
  p = Fma(p, r, Set1(1.6666665459e-1f));
  p = Fma(p, r, Set1(5.0000001201e-1f));
  return Fma(p, Mul(r, r), r);
}

inline Vec Exp(Vec x) {
  x = Min(Set1(89.0f), Max(Set1(-104.0f), x));
  const Vec n = ExpExponent(x);
  return ScaleByPow2(Add(ExpM1Reduced(ExpRemainder(x, n)), Set1(1.0f)), n);
}

// exp(x) - 1 without cancellation near zero.
inline Vec ExpM1(Vec x) {
  x = Min(Set1(89.0f), Max(Set1(-104.0f), x));
  const Vec n = Min(ExpExponent(x), Set1(127.0f));
  const Vec scale = ScaleByPow2(Set1(1.0f), n);
  return Fma(ExpM1Reduced(ExpRemainder(x, n)), scale, Sub(scale, Set1(1.0f)));
}

// ---- logarithms

// log(1 + f) for f in [sqrt(1/2) - 1, sqrt(2) - 1].
inline Vec Log1pReduced(Vec f) {
  Vec p = Set1(7.0376836292e-2f);
  p = Fma(p, f, Set1(-1.1514610310e-1f));
  p = Fma(p, f, Set1(1.1676998740e-1f));
  p = Fma(p, f, Set1(-1.2420140846e-1f));
  p = Fma(p, f, Set1(1.4249322787e-1f));
  p = Fma(p, f, Set1(-1.6668057665e-1f));
  p = Fma(p, f, Set1(2.0000714765e-1f));
  p = Fma(p, f, Set1(-2.4999993993e-1f));
  p = Fma(p, f, Set1(3.3333331174e-1f));
  const Vec ff = Mul(f, f);
  return Add(f, Fma(Mul(p, f), ff, Mul(Set1(-0.5f), ff)));
}

inline Vec Log(Vec x) {
  const Mask denormal = Less(x, Set1(1.17549435e-38f));
  const Vec scaled = Select(denormal, Mul(x, Set1(8388608.0f)), x);
  Vec m = Mantissa(scaled);
  Vec e = Add(Exponent(scaled), Select(denormal, Set1(-23.0f), Zero()));
  const Mask big = Less(Set1(1.41421356f), m);
  m = Select(big, Mul(m, Set1(0.5f)), m);
  e = Select(big, Add(e, Set1(1.0f)), e);
  Vec y = Fma(e, Set1(-2.12194440e-4f), Log1pReduced(Sub(m, Set1(1.0f))));
  y = Fma(e, Set1(0.693359375f), y);
  const Vec inf = Set1(__builtin_inff());
  y = Select(Less(x, inf), y, x);  // infinity and NaN
  y = Select(Equal(x, Zero()), Neg(inf), y);
  return Select(Less(x, Zero()), Set1(__builtin_nanf("")), y);
}

// log(1 + e) for e in [0, 1].
inline Vec Log1pUnit(Vec e) {
  const Mask big = Less(Set1(0.41421356f), e);
  const Vec f = Select(big, Mul(Sub(e, Set1(1.0f)), Set1(0.5f)), e);
  return Add(Log1pReduced(f), Select(big, Set1(0.693147181f), Zero()));
}

// ---- sigmoids

// x / (1 + exp(-y)). Of large negative y the divisor is infinite.
inline Vec TimesSigmoid(Vec x, Vec y) { return Div(x, Add(Set1(1.0f), Exp(Neg(y)))); }

inline Vec Sigmoid(Vec x) { return TimesSigmoid(Set1(1.0f), x); }

inline Vec Tanh(Vec x) {
  const Vec t = ExpM1(Mul(Set1(-2.0f), Abs(x)));
  const Vec y = Div(t, Add(t, Set1(2.0f)));
  return Select(Less(x, Zero()), y, Neg(y));
}

// (1 + 2 a) * exp(a^2) * erfc(a) = P((a - 2) / (a + 2)); returns erfc(a) for 0 <= a <= 20, to
// within a few units in the last place of 1.
inline Vec ErfcPositive(Vec a, Vec square) {
  const Vec below = Add(a, Set1(2.0f));
  const Vec factor = Fma(a, Set1(2.0f), Set1(1.0f));
  const Vec inverse = Div(Set1(1.0f), Mul(below, factor));
  const Vec t = Mul(Sub(a, Set1(2.0f)), Mul(inverse, factor));
  Vec p = Set1(-3.188626724e-4f);
  p = Fma(p, t, Set1(-1.112333033e-3f));
  p = Fma(p, t, Set1(1.256094431e-3f));
  p = Fma(p, t, Set1(8.510236628e-3f));
  p = Fma(p, t, Set1(-8.053721860e-3f));
  p = Fma(p, t, Set1(-5.416443944e-2f));
  p = Fma(p, t, Set1(1.640569419e-1f));
  p = Fma(p, t, Set1(-1.660356671e-1f));
  p = Fma(p, t, Set1(-9.276413172e-2f));
  p = Fma(p, t, Set1(1.276978493f));
  return Mul(Mul(p, Mul(inverse, below)), Exp(Neg(square)));
}

inline Vec Erf(Vec x) {
  const Vec a = Min(Set1(20.0f), Abs(x));
  const Vec square = Mul(a, a);
  Vec p = Set1(-5.631418899e-4f);
  p = Fma(p, square, Set1(4.917550832e-3f));
  p = Fma(p, square, Set1(-2.671131119e-2f));
  p = Fma(p, square, Set1(1.128017977e-1f));
  p = Fma(p, square, Set1(-3.761232495e-1f));
  p = Fma(p, square, Set1(1.128379107f));
  const Vec large = Sub(Set1(1.0f), ErfcPositive(a, square));
  const Vec y = Select(Less(a, Set1(1.0f)), Mul(a, p), large);
  return Select(Less(x, Zero()), Neg(y), y);
}

// x * erfc(-x / sqrt(2)) / 2, which keeps its digits for negative x: max(0, x) less the tail
// a * erfc(a / sqrt(2)) / 2 of a = |x|, with erfc(a / sqrt(2)) * exp(a^2 / 2) / 2 = P(1 / (1 +
// 0.305 a)).
inline Vec Gelu(Vec x) {
  const Vec a = Min(Set1(14.4f), Abs(x));  // the tail underflows
  const Vec n = ExpExponent(Mul(Mul(a, a), Set1(-0.5f)));
  // exp(-a^2 / 2) = 2^n * exp(-u / 2): a^2 is only rounded after most of it is taken off.
  Vec u = Fma(a, a, Mul(n, Set1(1.38671875f)));
  u = Fma(n, Set1(-4.24388880e-4f), u);
  Vec e = Set1(-2.592994856e-4f);
  e = Fma(e, u, Set1(2.619742288e-3f));
  e = Fma(e, u, Set1(-2.083447295e-2f));
  e = Fma(e, u, Set1(1.249972262e-1f));
  e = Fma(e, u, Set1(-4.999998451e-1f));
  e = Fma(e, u, Set1(1.0f));
  const Vec t = Div(Set1(1.0f), Fma(a, Set1(0.305f), Set1(1.0f)));
  Vec p = Set1(3.663887119e-2f);
  p = Fma(p, t, Set1(-1.527461001e-1f));
  p = Fma(p, t, Set1(1.853149239e-1f));
  p = Fma(p, t, Set1(-3.762068493e-2f));
  p = Fma(p, t, Set1(1.208404015e-1f));
  p = Fma(p, t, Set1(1.034736931e-1f));
  p = Fma(p, t, Set1(1.224586846e-1f));
  p = Fma(p, t, Set1(1.216402452e-1f));
  return Sub(Max(Zero(), x), ScaleByPow2(Mul(Mul(p, Mul(t, a)), e), n));
}

inline Vec GeluTanh(Vec x) {  // (1 + tanh(u)) / 2 = sigmoid(2 u)
  const Vec cubic = Fma(Mul(x, x), Set1(0.044715f), Set1(1.0f));
  return TimesSigmoid(x, Mul(Mul(x, Set1(1.59576912f)), cubic));
}

// max(0, x) less a polynomial in min(|x|, 4.5) instead of the tail: within 1.7e-5 of Gelu or
// GeluTanh, by its coefficients.
constexpr float kCoarseGeluLimit = 4.5f;

inline Vec CoarseGelu(Vec x, const float (&tail)[11]) {
  const Vec a = Min(Set1(kCoarseGeluLimit), Abs(x));
  const Vec t = Fma(a, Set1(2.0f / kCoarseGeluLimit), Set1(-1.0f));
  Vec p = Set1(tail[0]);
  for (int i = 1; i < 11; ++i) p = Fma(p, t, Set1(tail[i]));
  return Sub(Max(Zero(), x), p);
}

constexpr float kGeluTail[11] = {-4.42360155e-2f, 2.25840509e-2f,  1.80277765e-1f,  -1.78053230e-1f,
                                 -2.08082438e-1f, 4.36025232e-1f,  -2.01935127e-1f, -1.47540793e-1f,
                                 2.46478558e-1f,  -1.33017063e-1f, 2.74990350e-2f};
constexpr float kGeluTanhTail[11] = {-3.95196974e-2f, 1.92774758e-2f,  1.65317759e-1f,
                                     -1.67413071e-1f, -1.89989984e-1f, 4.22982842e-1f,
                                     -2.12249532e-1f, -1.40225336e-1f, 2.49242038e-1f,
                                     -1.34630486e-1f, 2.71980558e-2f};

inline Vec Softplus(Vec x) { return Add(Max(Zero(), x), Log1pUnit(Exp(Neg(Abs(x))))); }

// tanh(log(1 + e)) = n / (n + 2) with n = e (e + 2).
inline Vec Mish(Vec x) {
  const Vec e = Exp(Min(Set1(40.0f), x));
  const Vec n = Mul(e, Add(e, Set1(2.0f)));
  return Mul(x, Div(n, Add(n, Set1(2.0f))));
}

// ---- trigonometry

// sin(x + shift * pi / 2) for |x| <= 8192.
inline Vec SinShifted(Vec x, float shift) {
  const Vec magic = Set1(12582912.0f);
  const Vec n = Sub(Fma(x, Set1(0.636619772f), magic), magic);
  Vec r = Fnma(n, Set1(1.5703125f), x);
  r = Fnma(n, Set1(4.837512969970703125e-4f), r);
  r = Fnma(n, Set1(7.54978995489188216e-8f), r);
  const Vec turned = Add(n, Set1(shift));
  const Vec quadrant = Fnma(Floor(Mul(turned, Set1(0.25f))), Set1(4.0f), turned);  // 0, 1, 2, 3
  const Vec z = Mul(r, r);
  Vec s = Set1(-1.9515295891e-4f);
  s = Fma(s, z, Set1(8.3321608736e-3f));
  s = Fma(s, z, Set1(-1.6666654611e-1f));
  s = Fma(Mul(s, z), r, r);
  Vec c = Set1(2.443315711809948e-5f);
  c = Fma(c, z, Set1(-1.388731625493765e-3f));
  c = Fma(c, z, Set1(4.166664568298827e-2f));
  c = Fma(Mul(c, z), z, Fma(z, Set1(-0.5f), Set1(1.0f)));
  const Mask odd = Equal(Abs(Sub(quadrant, Set1(2.0f))), Set1(1.0f));
  const Vec y = Select(odd, c, s);
  return Select(Less(quadrant, Set1(2.0f)), y, Neg(y));
}

// Larger, infinite and NaN arguments go lane by lane through the C library.
SRT_SHARED Vec SinLarge(Vec x, bool cosine) {
  float lanes[Vec::kLanes];
  StoreU(lanes, x);
  for (int i = 0; i < Vec::kLanes; ++i) lanes[i] = cosine ? ::cosf(lanes[i]) : ::sinf(lanes[i]);
  return LoadU(lanes);
}

inline bool AllWithin(Vec x, float limit) {
  return ReduceMax(Select(LessEqual(Abs(x), Set1(limit)), Zero(), Set1(1.0f))) == 0.0f;
}

inline Vec Sin(Vec x) { return AllWithin(x, 8192.0f) ? SinShifted(x, 0.0f) : SinLarge(x, false); }
inline Vec Cos(Vec x) { return AllWithin(x, 8192.0f) ? SinShifted(x, 1.0f) : SinLarge(x, true); }

// ---- functions that are rare in networks: lane by lane through the C library

SRT_SHARED Vec LaneByLane(Vec x, float (*function)(float)) {
  float lanes[Vec::kLanes];
  StoreU(lanes, x);
  for (int i = 0; i < Vec::kLanes; ++i) lanes[i] = function(lanes[i]);
  return LoadU(lanes);
}

// ---- the functions of the opset

// As UnaryFn::kCount: the function is not known at compile time (see ApplyAny).
constexpr UnaryFn kAnyFn = UnaryFn::kCount;

// F(x; alpha, beta), formulas in base/functions.h.
template <UnaryFn F>
inline Vec Apply(Vec x, Vec alpha, Vec beta) {
  const Vec zero = Zero();
  const Vec one = Set1(1.0f);
  if constexpr (F == UnaryFn::kNone) {
    return x;
  } else if constexpr (F == UnaryFn::kRelu) {
    return Max(zero, x);
  } else if constexpr (F == UnaryFn::kLeakyRelu) {
    return Select(Less(x, zero), Mul(alpha, x), x);
  } else if constexpr (F == UnaryFn::kElu) {
    return Select(Less(x, zero), Mul(alpha, ExpM1(x)), x);
  } else if constexpr (F == UnaryFn::kSelu) {
    return Mul(beta, Select(Less(zero, x), x, Mul(alpha, ExpM1(x))));
  } else if constexpr (F == UnaryFn::kCelu) {
    return Select(Less(x, zero), Mul(alpha, ExpM1(Div(x, alpha))), x);
  } else if constexpr (F == UnaryFn::kHardSigmoid) {
    return Max(zero, Min(one, Fma(alpha, x, beta)));
  } else if constexpr (F == UnaryFn::kHardSwish) {
    return Mul(x, Max(zero, Min(one, Fma(x, Set1(1.0f / 6.0f), Set1(0.5f)))));
  } else if constexpr (F == UnaryFn::kSigmoid) {
    return Sigmoid(x);
  } else if constexpr (F == UnaryFn::kTanh) {
    return Tanh(x);
  } else if constexpr (F == UnaryFn::kSilu) {
    return TimesSigmoid(x, Mul(alpha, x));
  } else if constexpr (F == UnaryFn::kGelu) {
    return Gelu(x);
  } else if constexpr (F == UnaryFn::kGeluTanh) {
    return GeluTanh(x);
  } else if constexpr (F == UnaryFn::kClip) {
    return Min(beta, Max(alpha, x));
  } else if constexpr (F == UnaryFn::kExp) {
    return Exp(x);
  } else if constexpr (F == UnaryFn::kLog) {
    return Log(x);
  } else if constexpr (F == UnaryFn::kSqrt) {
    return Sqrt(x);
  } else if constexpr (F == UnaryFn::kAbs) {
    return Abs(x);
  } else if constexpr (F == UnaryFn::kNeg) {
    return Neg(x);
  } else if constexpr (F == UnaryFn::kReciprocal) {
    return Div(one, x);
  } else if constexpr (F == UnaryFn::kFloor) {
    return Floor(x);
  } else if constexpr (F == UnaryFn::kCeil) {
    return Ceil(x);
  } else if constexpr (F == UnaryFn::kRound) {
    return Round(x);
  } else if constexpr (F == UnaryFn::kErf) {
    return Erf(x);
  } else if constexpr (F == UnaryFn::kSin) {
    return Sin(x);
  } else if constexpr (F == UnaryFn::kCos) {
    return Cos(x);
  } else if constexpr (F == UnaryFn::kSoftplus) {
    return Softplus(x);
  } else if constexpr (F == UnaryFn::kSoftsign) {
    return Div(x, Add(one, Abs(x)));
  } else if constexpr (F == UnaryFn::kMish) {
    return Mish(x);
  } else if constexpr (F == UnaryFn::kSign) {
    return Select(Less(x, zero), Set1(-1.0f), Select(Less(zero, x), one, x));
  } else if constexpr (F == UnaryFn::kTan) {
    return LaneByLane(x, ::tanf);
  } else if constexpr (F == UnaryFn::kAsin) {
    return LaneByLane(x, ::asinf);
  } else if constexpr (F == UnaryFn::kAcos) {
    return LaneByLane(x, ::acosf);
  } else if constexpr (F == UnaryFn::kAtan) {
    return LaneByLane(x, ::atanf);
  } else if constexpr (F == UnaryFn::kSinh) {
    return LaneByLane(x, ::sinhf);
  } else if constexpr (F == UnaryFn::kCosh) {
    return LaneByLane(x, ::coshf);
  } else if constexpr (F == UnaryFn::kAsinh) {
    return LaneByLane(x, ::asinhf);
  } else if constexpr (F == UnaryFn::kAcosh) {
    return LaneByLane(x, ::acoshf);
  } else if constexpr (F == UnaryFn::kAtanh) {
    return LaneByLane(x, ::atanhf);
  } else if constexpr (F == UnaryFn::kAffine) {
    return Fma(alpha, x, beta);
  } else if constexpr (F == UnaryFn::kScaledTanh) {
    return Mul(alpha, Tanh(Mul(beta, x)));
  } else {
    static_assert(F == UnaryFn::kThresholdedRelu, "a function without a formula");
    return Select(Less(alpha, x), x, zero);
  }
}

#define SRT_UNARY_CASE_(function, F, ...)    \
  case UnaryFn::function: {                  \
    constexpr UnaryFn F = UnaryFn::function; \
    __VA_ARGS__;                             \
  } break;

// Runs the statements with `F` a constant equal to `value`: one copy of them per function.
#define SRT_DISPATCH_UNARY(value, F, ...)             \
  switch (value) {                                    \
    SRT_UNARY_CASE_(kNone, F, __VA_ARGS__)            \
    SRT_UNARY_CASE_(kRelu, F, __VA_ARGS__)            \
    SRT_UNARY_CASE_(kLeakyRelu, F, __VA_ARGS__)       \
    SRT_UNARY_CASE_(kElu, F, __VA_ARGS__)             \
    SRT_UNARY_CASE_(kSelu, F, __VA_ARGS__)            \
    SRT_UNARY_CASE_(kCelu, F, __VA_ARGS__)            \
    SRT_UNARY_CASE_(kHardSigmoid, F, __VA_ARGS__)     \
    SRT_UNARY_CASE_(kHardSwish, F, __VA_ARGS__)       \
    SRT_UNARY_CASE_(kSigmoid, F, __VA_ARGS__)         \
    SRT_UNARY_CASE_(kTanh, F, __VA_ARGS__)            \
    SRT_UNARY_CASE_(kSilu, F, __VA_ARGS__)            \
    SRT_UNARY_CASE_(kGelu, F, __VA_ARGS__)            \
    SRT_UNARY_CASE_(kGeluTanh, F, __VA_ARGS__)        \
    SRT_UNARY_CASE_(kClip, F, __VA_ARGS__)            \
    SRT_UNARY_CASE_(kExp, F, __VA_ARGS__)             \
    SRT_UNARY_CASE_(kLog, F, __VA_ARGS__)             \
    SRT_UNARY_CASE_(kSqrt, F, __VA_ARGS__)            \
    SRT_UNARY_CASE_(kAbs, F, __VA_ARGS__)             \
    SRT_UNARY_CASE_(kNeg, F, __VA_ARGS__)             \
    SRT_UNARY_CASE_(kReciprocal, F, __VA_ARGS__)      \
    SRT_UNARY_CASE_(kFloor, F, __VA_ARGS__)           \
    SRT_UNARY_CASE_(kCeil, F, __VA_ARGS__)            \
    SRT_UNARY_CASE_(kRound, F, __VA_ARGS__)           \
    SRT_UNARY_CASE_(kErf, F, __VA_ARGS__)             \
    SRT_UNARY_CASE_(kSin, F, __VA_ARGS__)             \
    SRT_UNARY_CASE_(kCos, F, __VA_ARGS__)             \
    SRT_UNARY_CASE_(kSoftplus, F, __VA_ARGS__)        \
    SRT_UNARY_CASE_(kSoftsign, F, __VA_ARGS__)        \
    SRT_UNARY_CASE_(kMish, F, __VA_ARGS__)            \
    SRT_UNARY_CASE_(kSign, F, __VA_ARGS__)            \
    SRT_UNARY_CASE_(kThresholdedRelu, F, __VA_ARGS__) \
    SRT_UNARY_CASE_(kTan, F, __VA_ARGS__)             \
    SRT_UNARY_CASE_(kAsin, F, __VA_ARGS__)            \
    SRT_UNARY_CASE_(kAcos, F, __VA_ARGS__)            \
    SRT_UNARY_CASE_(kAtan, F, __VA_ARGS__)            \
    SRT_UNARY_CASE_(kSinh, F, __VA_ARGS__)            \
    SRT_UNARY_CASE_(kCosh, F, __VA_ARGS__)            \
    SRT_UNARY_CASE_(kAsinh, F, __VA_ARGS__)           \
    SRT_UNARY_CASE_(kAcosh, F, __VA_ARGS__)           \
    SRT_UNARY_CASE_(kAtanh, F, __VA_ARGS__)           \
    SRT_UNARY_CASE_(kAffine, F, __VA_ARGS__)          \
    SRT_UNARY_CASE_(kScaledTanh, F, __VA_ARGS__)      \
    case UnaryFn::kCount:                             \
      break;                                          \
  }

// ---- fused activations: few compile-time copies, the rare functions by a switch per vector

struct ActivationVec {
  UnaryFn fn;
  Vec alpha;
  Vec beta;
};

inline ActivationVec MakeActivation(const Activation& a) {
  return {a.fn, Set1(a.alpha), Set1(a.beta)};
}

}  // namespace SRT_ISA

namespace SRT_VEC_ISA {
// Applies `act` to n vectors, at `vectors` and every `step` floats behind. In the files of
// kernels/unary/.
void ApplyToVectors(const Activation& act, float* vectors, int n, int64_t step);
}  // namespace SRT_VEC_ISA

namespace SRT_ISA {

// Applies `act` to a[0, n): for rows held in registers, where the function is rare.
inline void ApplyActivation(const Activation& act, Vec* a, int n) {
  SRT_VEC_ISA::ApplyToVectors(act, reinterpret_cast<float*>(a), n, Vec::kLanes);
}

template <UnaryFn F, int N>
SRT_INLINE void ApplyToRegisters(const Activation& act, Vec (&a)[N]) {
  const Vec alpha = Set1(act.alpha);
  const Vec beta = Set1(act.beta);
#pragma GCC unroll 8
  for (int i = 0; i < N; ++i) a[i] = Apply<F>(a[i], alpha, beta);
}

// Applies `act` to vectors in registers, if it is a function of few operations; else false.
template <int N>
SRT_INLINE bool ActivateInRegisters(const Activation& act, Vec (&a)[N]) {
  switch (act.fn) {
    case UnaryFn::kNone:
      return true;
    case UnaryFn::kRelu:
      ApplyToRegisters<UnaryFn::kRelu>(act, a);
      return true;
    case UnaryFn::kClip:
      ApplyToRegisters<UnaryFn::kClip>(act, a);
      return true;
    default:
      break;
  }
  if (Vec::kShortCode) return false;
  UnaryFn fn = act.fn;
  __asm__("" : "+r"(fn));  // one switch of all would jump by a table, also for those above
  if (fn == UnaryFn::kHardSwish) {
    ApplyToRegisters<UnaryFn::kHardSwish>(act, a);
    return true;
  }
  if (fn == UnaryFn::kLeakyRelu) {
    ApplyToRegisters<UnaryFn::kLeakyRelu>(act, a);
    return true;
  }
  return false;
}

// Applies `act` to vectors in registers.
template <int N>
SRT_INLINE void ActivateRegisters(const Activation& act, Vec (&a)[N]) {
  if (ActivateInRegisters(act, a)) return;
  Vec copy[N];  // an array that is given away would be in memory for the others too
#pragma GCC unroll 8
  for (int i = 0; i < N; ++i) copy[i] = a[i];
  ApplyActivation(act, copy, N);
#pragma GCC unroll 8
  for (int i = 0; i < N; ++i) a[i] = copy[i];
}

SRT_SHARED Vec ApplyAny(UnaryFn fn, Vec x, Vec alpha, Vec beta) {
  if constexpr (Vec::kShortCode) {
    float lanes[2][Vec::kLanes];
    StoreU(lanes[0], alpha);
    StoreU(lanes[1], beta);
    ApplyActivation({fn, lanes[0][0], lanes[1][0]}, &x, 1);
  } else {
    SRT_DISPATCH_UNARY(fn, F, return Apply<F>(x, alpha, beta))
  }
  return x;
}

// `F` is kAnyFn or equal to act.fn.
template <UnaryFn F>
inline Vec Activate(Vec x, const ActivationVec& act) {
  if constexpr (F == kAnyFn) {
    return ApplyAny(act.fn, x, act.alpha, act.beta);
  } else {
    return Apply<F>(x, act.alpha, act.beta);
  }
}

// Runs the statements with `F` the constant to give Activate: kNone, kRelu, kClip or kAnyFn. Put
// it outside of the loop:
//   SRT_DISPATCH_ACTIVATION(act.fn, F, Rows<F>(args, begin, end))
#define SRT_DISPATCH_ACTIVATION(value, F, ...) \
  switch (value) {                             \
    SRT_UNARY_CASE_(kNone, F, __VA_ARGS__)     \
    SRT_UNARY_CASE_(kRelu, F, __VA_ARGS__)     \
    SRT_UNARY_CASE_(kClip, F, __VA_ARGS__)     \
    default: {                                 \
      constexpr UnaryFn F = kAnyFn;            \
      __VA_ARGS__;                             \
    } break;                                   \
  }

}  // namespace SRT_ISA
}  // namespace sparsert
