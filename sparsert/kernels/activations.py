"""Scalar functions over spans of f32, written so that LLVM makes vectors of the loops."""

from __future__ import annotations

from typing import Any

import numpy as np

from sparsert.kernels.compiling import inner, kernel, outline

# Number of each function; 0 is what kernels do themselves: bounds below and above.
FUNCTIONS = (
    *("clip", "leaky_relu", "elu", "selu", "celu", "hard_sigmoid", "hard_swish", "sigmoid"),
    *("tanh", "silu", "gelu", "gelu_tanh", "exp", "softplus", "mish", "erf"),
)
TASK = 1024  # elements of a task of activate_all()
_ZERO, _HALF, _ONE, _TWO = np.float32(0), np.float32(0.5), np.float32(1), np.float32(2)
_LEAST, _MOST = np.float32(-104), np.float32(89)  # exp() is 0 below, infinite above
_LOG2E = np.float32(1.4426950408889634)
# ln 2 in two parts, so that x - n ln 2 is exact enough.
_LN2_HIGH, _LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
# Adding this to a small number rounds it; the integer is in the low bits.
_ROUND = np.float32(12582912.0)
_ROUND_BITS = np.int32(0x4B400000)
# (exp(r) - 1 - r) / r^2 for |r| <= ln 2 / 2.
_E0, _E1, _E2 = (
    np.float32(1.9875691500e-4),
    np.float32(1.3981999507e-3),
    np.float32(8.3334519073e-3),
)
_E3, _E4, _E5 = (
    np.float32(4.1665795894e-2),
    np.float32(1.6666665459e-1),
    np.float32(5.0000001201e-1),
)
# erf(x) = 1 - p(1 / (1 + _P x)) exp(-x^2) for x >= 0, within 1.5e-7.
_P = np.float32(0.3275911)
_A1, _A2 = np.float32(0.254829592), np.float32(-0.284496736)
_A3, _A4 = np.float32(1.421413741), np.float32(-1.453152027)
_A5 = np.float32(1.061405429)
_SQRT_HALF = np.float32(0.7071067811865476)
_TANH_SCALE, _TANH_CUBE = np.float32(0.7978845608028654), np.float32(0.044715)
_SIXTH = np.float32(1 / 6)
_C3, _C5, _C7 = np.float32(1 / 3), np.float32(1 / 5), np.float32(1 / 7)
_C9, _C11, _C13 = np.float32(1 / 9), np.float32(1 / 11), np.float32(1 / 13)
_FAR = np.float32(20)


@inner
def _exp(x: Any) -> Any:
    x = _LEAST if x < _LEAST else x
    x = _MOST if x > _MOST else x
    shifted = x * _LOG2E + _ROUND
    n = shifted - _ROUND
    r = x - n * _LN2_HIGH - n * _LN2_LOW
    p = ((((_E0 * r + _E1) * r + _E2) * r + _E3) * r + _E4) * r + _E5
    p = p * r * r + r + _ONE
    # 2^n in two factors: either alone is a normal number.
    whole = np.float32(shifted).view(np.int32) - _ROUND_BITS
    half = whole >> 1
    first = np.int32((half + 127) << 23).view(np.float32)
    second = np.int32((whole - half + 127) << 23).view(np.float32)
    return p * first * second


@inner
def _sigmoid(x: Any) -> Any:
    return _ONE / (_ONE + _exp(-x))


@inner
def _tanh(x: Any) -> Any:
    return _ONE - _TWO / (_exp(_TWO * x) + _ONE)


@inner
def _erf(x: Any) -> Any:
    a = abs(x)
    t = _ONE / (_ONE + _P * a)
    p = ((((_A5 * t + _A4) * t + _A3) * t + _A2) * t + _A1) * t
    y = _ONE - p * _exp(-a * a)
    return -y if x < _ZERO else y


@inner
def _softplus(x: Any) -> Any:
    z = _exp(-abs(x))
    s = z / (_TWO + z)  # log(1 + z) = 2 atanh(s)
    q = s * s
    series = ((((((_C13 * q + _C11) * q + _C9) * q + _C7) * q + _C5) * q + _C3) * q + _ONE) * s
    return (x if x > _ZERO else _ZERO) + _TWO * series


@inner
def _mish(x: Any) -> Any:
    """Of x: x tanh(softplus(x)). With e = exp(x), tanh(log(1 + e)) = q / (q + 2), q = e^2 + 2 e."""
    e = _exp(_FAR if x > _FAR else x)
    q = e * e + _TWO * e
    return x * (q / (q + _TWO))


@inner
def _clip(x: Any, low: Any, high: Any) -> Any:
    x = low if x < low else x
    return high if x > high else x


@outline
def exponentiate(part: Any) -> None:
    """Replaces each element x by exp(x)."""
    for i in range(part.size):
        part[i] = _exp(part[i])


@outline
def activate(y: Any, begin: int, end: int, fn: int, alpha: Any, beta: Any) -> None:
    """Replaces y[begin:end] by function number `fn` of it."""
    part = y[begin:end]
    if fn == 0:
        for i in range(part.size):
            part[i] = _clip(part[i], alpha, beta)
    elif fn == 1:
        for i in range(part.size):
            part[i] = alpha * part[i] if part[i] < _ZERO else part[i]
    elif fn == 2:
        for i in range(part.size):
            part[i] = alpha * (_exp(part[i]) - _ONE) if part[i] < _ZERO else part[i]
    elif fn == 3:
        for i in range(part.size):
            x = part[i]
            part[i] = beta * (x if x > _ZERO else alpha * (_exp(x) - _ONE))
    elif fn == 4:
        for i in range(part.size):
            x = part[i]
            part[i] = x if x > _ZERO else alpha * (_exp(x / alpha) - _ONE)
    elif fn == 5:
        for i in range(part.size):
            part[i] = _clip(alpha * part[i] + beta, _ZERO, _ONE)
    elif fn == 6:
        for i in range(part.size):
            part[i] = part[i] * _clip(part[i] * _SIXTH + _HALF, _ZERO, _ONE)
    elif fn == 7:
        for i in range(part.size):
            part[i] = _sigmoid(part[i])
    elif fn == 8:
        for i in range(part.size):
            part[i] = _tanh(part[i])
    elif fn == 9:
        for i in range(part.size):
            part[i] = part[i] * _sigmoid(alpha * part[i])
    elif fn == 10:
        for i in range(part.size):
            part[i] = _HALF * part[i] * (_ONE + _erf(part[i] * _SQRT_HALF))
    elif fn == 11:
        for i in range(part.size):
            x = part[i]
            inside = _TANH_SCALE * (x + _TANH_CUBE * x * x * x)
            part[i] = _HALF * x * (_ONE + _tanh(inside))
    elif fn == 12:
        exponentiate(part)
    elif fn == 13:
        for i in range(part.size):
            part[i] = _softplus(part[i])
    elif fn == 14:
        for i in range(part.size):
            part[i] = _mish(part[i])
    else:
        for i in range(part.size):
            part[i] = _erf(part[i])


@kernel
def activate_all(x: Any, y: Any, act: Any, begin: int, end: int) -> None:
    """Writes the function of x to y, in tasks of TASK elements."""
    fn, alpha, beta = act
    first, last = begin * TASK, min(end * TASK, x.size)
    for i in range(first, last):
        y[i] = x[i]
    activate(y, first, last, fn, alpha, beta)
