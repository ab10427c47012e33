"""Scalar functions over spans of f32."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from sparsert.kernels.compiling import inner, kernel

# Number of each function; 0 is what the kernels do themselves: bounds below and above.
FUNCTIONS = (
    *("clip", "leaky_relu", "elu", "hard_sigmoid", "hard_swish", "sigmoid", "tanh", "silu"),
    *("gelu", "gelu_tanh", "exp", "softplus", "mish", "erf"),
)
_SQRT_HALF = math.sqrt(0.5)
_TANH_SCALE = math.sqrt(2 / math.pi)


@inner
def _sigmoid(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-x))


@inner
def _softplus(x: float) -> float:
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


@inner
def activate(y: Any, begin: int, end: int, fn: int, alpha: float, beta: float) -> None:
    """Replaces y[begin:end] by function number `fn` of it; smooth ones are computed in f64."""
    for i in range(begin, end):
        x = float(y[i])
        if fn == 0:
            x = min(max(x, alpha), beta)
        elif fn == 1:
            x = alpha * x if x < 0 else x
        elif fn == 2:
            x = alpha * math.expm1(x) if x < 0 else x
        elif fn == 3:
            x = min(max(alpha * x + beta, 0.0), 1.0)
        elif fn == 4:
            x = x * min(max(x / 6 + 0.5, 0.0), 1.0)
        elif fn == 5:
            x = _sigmoid(x)
        elif fn == 6:
            x = math.tanh(x)
        elif fn == 7:
            x = x * _sigmoid(alpha * x)
        elif fn == 8:
            x = 0.5 * x * (1 + math.erf(x * _SQRT_HALF))
        elif fn == 9:
            x = 0.5 * x * (1 + math.tanh(_TANH_SCALE * (x + 0.044715 * x * x * x)))
        elif fn == 10:
            x = math.exp(x)
        elif fn == 11:
            x = _softplus(x)
        elif fn == 12:
            x = x * math.tanh(_softplus(x))
        else:
            x = math.erf(x)
        y[i] = np.float32(x)


@kernel
def activate_all(x: Any, y: Any, fn: int, alpha: float, beta: float, begin: int, end: int) -> None:
    """Writes the function of x[begin:end] to y."""
    for i in range(begin, end):
        y[i] = x[i]
    activate(y, begin, end, fn, alpha, beta)
