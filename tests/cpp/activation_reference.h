// The functions of Unary, and of fused activations, in double.
#pragma once

#include <cmath>

#include "base/functions.h"

namespace sparsert {
namespace test {

inline double LogisticOf(double x) { return 1.0 / (1.0 + std::exp(-x)); }

// f(x) in double.
inline double Activate(const Activation& f, double x) {
  const double a = f.alpha;
  const double b = f.beta;
  if (std::isnan(x) && f.fn != UnaryFn::kThresholdedRelu) return x;
  switch (f.fn) {
    case UnaryFn::kNone:
    case UnaryFn::kCount:
      return x;
    case UnaryFn::kRelu:
      return x > 0 ? x : 0;
    case UnaryFn::kLeakyRelu:
      return x < 0 ? a * x : x;
    case UnaryFn::kElu:
      return x < 0 ? a * std::expm1(x) : x;
    case UnaryFn::kSelu:
      return b * (x > 0 ? x : a * std::expm1(x));
    case UnaryFn::kCelu:
      return std::fmax(0, x) + std::fmin(0, a * std::expm1(x / a));
    case UnaryFn::kHardSigmoid:
      return std::fmax(0, std::fmin(1, a * x + b));
    case UnaryFn::kHardSwish:
      return x * std::fmax(0, std::fmin(1, x / 6 + 0.5));
    case UnaryFn::kSigmoid:
      return LogisticOf(x);
    case UnaryFn::kTanh:
      return std::tanh(x);
    case UnaryFn::kSilu:
      return x * LogisticOf(a * x);
    case UnaryFn::kGelu:
      return x * 0.5 * std::erfc(-x / std::sqrt(2.0));
    case UnaryFn::kGeluTanh:
      return x * LogisticOf(2 * std::sqrt(2 / 3.14159265358979323846) * (x + 0.044715 * x * x * x));
    case UnaryFn::kClip:
      return std::fmin(b, std::fmax(a, x));
    case UnaryFn::kExp:
      return std::exp(x);
    case UnaryFn::kLog:
      return std::log(x);
    case UnaryFn::kSqrt:
      return std::sqrt(x);
    case UnaryFn::kAbs:
      return std::fabs(x);
    case UnaryFn::kNeg:
      return -x;
    case UnaryFn::kReciprocal:
      return 1 / x;
    case UnaryFn::kFloor:
      return std::floor(x);
    case UnaryFn::kCeil:
      return std::ceil(x);
    case UnaryFn::kRound:
      return std::nearbyint(x);
    case UnaryFn::kErf:
      return std::erf(x);
    case UnaryFn::kSin:
      return std::sin(x);
    case UnaryFn::kCos:
      return std::cos(x);
    case UnaryFn::kSoftplus:
      return std::fmax(0, x) + std::log1p(std::exp(-std::fabs(x)));
    case UnaryFn::kSoftsign:
      return x / (1 + std::fabs(x));
    case UnaryFn::kMish:
      return x * std::tanh(std::fmax(0, x) + std::log1p(std::exp(-std::fabs(x))));
    case UnaryFn::kSign:
      return x > 0 ? 1 : x < 0 ? -1 : x;
    case UnaryFn::kThresholdedRelu:
      return x > a ? x : 0;
    case UnaryFn::kTan:
      return std::tan(x);
    case UnaryFn::kAsin:
      return std::asin(x);
    case UnaryFn::kAcos:
      return std::acos(x);
    case UnaryFn::kAtan:
      return std::atan(x);
    case UnaryFn::kSinh:
      return std::sinh(x);
    case UnaryFn::kCosh:
      return std::cosh(x);
    case UnaryFn::kAsinh:
      return std::asinh(x);
    case UnaryFn::kAcosh:
      return std::acosh(x);
    case UnaryFn::kAtanh:
      return std::atanh(x);
    case UnaryFn::kAffine:
      return a * x + b;
    case UnaryFn::kScaledTanh:
      return a * std::tanh(b * x);
  }
  return x;
}

}  // namespace test
}  // namespace sparsert
