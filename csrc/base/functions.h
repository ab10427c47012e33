// The scalar functions of the opset, as numbered in the file. Shared by graph and kernels.
#pragma once

#include <cstdint>

namespace sparsert {

// y = f(x; alpha, beta). Used by Unary and as the fused activation of other ops.
enum class UnaryFn : uint8_t {
  kNone = 0,
  kRelu = 1,
  kLeakyRelu = 2,    // x < 0 ? alpha * x : x
  kElu = 3,          // x < 0 ? alpha * (exp(x) - 1) : x
  kSelu = 4,         // beta * (x > 0 ? x : alpha * (exp(x) - 1)); beta = gamma of ONNX
  kCelu = 5,         // max(0, x) + min(0, alpha * (exp(x / alpha) - 1))
  kHardSigmoid = 6,  // max(0, min(1, alpha * x + beta))
  kHardSwish = 7,    // x * max(0, min(1, x / 6 + 1 / 2))
  kSigmoid = 8,
  kTanh = 9,
  kSilu = 10,      // x * sigmoid(alpha * x)
  kGelu = 11,      // x / 2 * (1 + erf(x / sqrt(2)))
  kGeluTanh = 12,  // tanh approximation
  kClip = 13,      // min(max(x, alpha), beta)
  kExp = 14,
  kLog = 15,
  kSqrt = 16,
  kAbs = 17,
  kNeg = 18,
  kReciprocal = 19,
  kFloor = 20,
  kCeil = 21,
  kRound = 22,  // half to even
  kErf = 23,
  kSin = 24,
  kCos = 25,
  kSoftplus = 26,
  kSoftsign = 27,
  kMish = 28,
  kSign = 29,
  kThresholdedRelu = 30,  // x > alpha ? x : 0
  kTan = 31,
  kAsin = 32,
  kAcos = 33,
  kAtan = 34,
  kSinh = 35,
  kCosh = 36,
  kAsinh = 37,
  kAcosh = 38,
  kAtanh = 39,
  // Of the gates of recurrent layers alone.
  kAffine = 40,      // alpha * x + beta
  kScaledTanh = 41,  // alpha * tanh(beta * x)
  kCount = 42,
};
constexpr int64_t kUnaryFns = 40;  // those of Unary and of fused activations

enum class BinaryFn : uint8_t {
  kAdd = 0,
  kSub = 1,
  kMul = 2,
  kDiv = 3,
  kPow = 4,
  kMin = 5,
  kMax = 6,
  kMod = 7,   // the sign of b
  kFmod = 8,  // the sign of a
  // Integers only.
  kShiftLeft = 9,
  kShiftRight = 10,
  kBitwiseAnd = 11,
  kBitwiseOr = 12,
  kBitwiseXor = 13,
  kCount = 14,
};

enum class ReduceFn : uint8_t {
  kSum = 0,
  kMean = 1,
  kMax = 2,
  kMin = 3,
  kProd = 4,
  kL1 = 5,
  kL2 = 6,
  kSumSquare = 7,
  kLogSum = 8,
  kLogSumExp = 9,
  kCount = 10,
};

enum class CompareFn : uint8_t {
  kEqual = 0,
  kLess = 1,
  kLessOrEqual = 2,
  kGreater = 3,
  kGreaterOrEqual = 4,
  kAnd = 5,
  kOr = 6,
  kXor = 7,
  kNot = 8,  // of one operand
  kCount = 9,
};

// How an update of a Scatter joins what is there.
enum class ScatterReduction : uint8_t {
  kNone = 0,
  kAdd = 1,
  kMul = 2,
  kMax = 3,
  kMin = 4,
  kCount = 5,
};

// Of recurrent layers.
enum class Cell : uint8_t { kRnn = 0, kLstm = 1, kGru = 2, kCount = 3 };

enum class PadMode : uint8_t { kConstant = 0, kReflect = 1, kEdge = 2, kWrap = 3, kCount = 4 };
enum class ResizeMode : uint8_t { kNearest = 0, kLinear = 1, kCubic = 2, kCount = 3 };
enum class CoordinateMode : uint8_t {
  kHalfPixel = 0,
  kPytorchHalfPixel = 1,
  kAlignCorners = 2,
  kAsymmetric = 3,
  kHalfPixelSymmetric = 4,
  kTfCropAndResize = 5,
  kCount = 6,
};
enum class NearestMode : uint8_t {
  kRoundPreferFloor = 0,
  kRoundPreferCeil = 1,
  kFloor = 2,
  kCeil = 3,
  kCount = 4,
};
// What GridSample finds outside of its input.
enum class GridPadding : uint8_t { kZeros = 0, kBorder = 1, kReflection = 2, kCount = 3 };
// Of RoiAlign.
enum class RoiMode : uint8_t { kAvg = 0, kMax = 1, kCount = 2 };
enum class RoiCoordinates : uint8_t { kHalfPixel = 0, kOutputHalfPixel = 1, kCount = 2 };
enum class AutoPad : uint8_t { kNotSet = 0, kSameUpper = 1, kSameLower = 2, kCount = 3 };

struct Activation {
  UnaryFn fn = UnaryFn::kNone;
  float alpha = 0.0f;
  float beta = 0.0f;
};

}  // namespace sparsert
