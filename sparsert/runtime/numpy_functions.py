"""The operators of the sparsert opset in NumPy: the definition that every backend is tested with.

Arrays are f32 unless said otherwise. Those over windows are in numpy_windows.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

_SQRT_HALF = math.sqrt(0.5)
# As in onnxruntime, a position this close to the middle between two cells is in the middle.
_TIE_TOLERANCE = np.float32(1e-6)
_erf_object = np.frompyfunc(math.erf, 1, 1)


def _erf(x: np.ndarray) -> np.ndarray:
    return np.asarray(_erf_object(x), dtype=np.float64)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(0.5 * x))


def _softplus(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def saturated(x: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    """Returns floats as integers: truncated, the nearest there is beyond the range, 0 for NaN."""
    if x.dtype.kind not in "f":
        try:
            x = x.astype(np.float64)
        except (TypeError, ValueError):  # strings
            return x.astype(dtype)
    info = np.iinfo(dtype)
    beyond = 2.0 ** (info.bits - (info.min < 0))  # as info.max + 1, which floats do not have
    below = -beyond - 1 if info.min < 0 else -1.0
    inside = (x < beyond) & (x > below)
    y = np.where(inside, x, 0).astype(dtype)
    y = np.where(x >= beyond, dtype.type(info.max), y)
    return np.where(x <= below, dtype.type(info.min), y)


def activate(x: np.ndarray, fn: str | None, alpha: float = 0.0, beta: float = 0.0) -> np.ndarray:
    """Returns fn(x; alpha, beta) elementwise; `fn` is a name of the opset's scalar functions.

    Smooth functions are computed in f64 and rounded once.

    Raises:
        ValueError: no such function.
    """
    if fn in (None, "", "none"):
        return x
    zero = np.float32(0)
    if fn == "relu":
        return np.maximum(x, zero)
    if fn in ("clip", "relu6"):
        low, high = (0.0, 6.0) if fn == "relu6" else (alpha, beta)
        return np.minimum(np.maximum(x, np.float32(low)), np.float32(high))
    if fn == "leaky_relu":
        return np.where(x < 0, np.float32(alpha) * x, x)
    if fn == "thresholded_relu":
        return np.where(x > np.float32(alpha), x, zero)
    exact: dict[str, Callable[..., Any]] = {
        "abs": np.abs,
        "neg": np.negative,
        "floor": np.floor,
        "ceil": np.ceil,
    }
    exact |= {"round": np.rint, "sign": np.sign}
    if fn in exact:
        return np.asarray(exact[fn](x))
    if fn == "affine":
        return np.float32(alpha) * x + np.float32(beta)
    with np.errstate(all="ignore"):
        return _smooth(x.astype(np.float64), fn or "", alpha, beta).astype(np.float32)


def _smooth(x: np.ndarray, fn: str, alpha: float, beta: float) -> np.ndarray:
    if fn == "elu":
        return np.where(x < 0, alpha * np.expm1(x), x)
    if fn == "selu":
        return beta * np.where(x > 0, x, alpha * np.expm1(x))
    if fn == "celu":
        return np.maximum(x, 0) + np.minimum(0, alpha * np.expm1(x / alpha))
    if fn == "hard_sigmoid":
        return np.clip(alpha * x + beta, 0, 1)
    if fn == "scaled_tanh":
        return alpha * np.tanh(beta * x)
    if fn == "hard_swish":
        return x * np.clip(x / 6 + 0.5, 0, 1)
    if fn == "silu":
        return x * _sigmoid(alpha * x)
    if fn == "gelu":
        return 0.5 * x * (1 + _erf(x * _SQRT_HALF))
    if fn == "gelu_tanh":
        return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    if fn == "mish":
        return x * np.tanh(_softplus(x))
    functions: dict[str, Callable[..., Any]] = {
        "sigmoid": _sigmoid,
        "tanh": np.tanh,
        "exp": np.exp,
        "log": np.log,
        "sqrt": np.sqrt,
        "reciprocal": np.reciprocal,
        "erf": _erf,
        "sin": np.sin,
        "cos": np.cos,
        "tan": np.tan,
        "asin": np.arcsin,
        "acos": np.arccos,
        "atan": np.arctan,
        "sinh": np.sinh,
        "cosh": np.cosh,
        "asinh": np.arcsinh,
        "acosh": np.arccosh,
        "atanh": np.arctanh,
        "softplus": _softplus,
        "softsign": lambda v: v / (1 + np.abs(v)),
    }
    if fn not in functions:
        raise ValueError(f"unknown scalar function '{fn}'")
    return np.asarray(functions[fn](x))


def resize(
    x: np.ndarray,
    scales: Sequence[float] | None,
    sizes: Sequence[int] | None,
    axes: Sequence[int] | None,
    mode: str,
    coordinates: str,
    nearest_mode: str,
    policy: str,
) -> np.ndarray:
    """Resize by nearest or linear interpolation, one axis after the other; x of any rank."""
    chosen = [a % x.ndim for a in axes] if axes else list(range(x.ndim))
    for axis, scale, out in _targets(x.shape, chosen, scales, sizes, policy):
        if out == x.shape[axis] and scale == 1:
            continue
        at = _source_positions(x.shape[axis], out, scale, coordinates)
        last = x.shape[axis] - 1
        if mode == "nearest":
            rules: dict[str, Callable[..., Any]] = {
                "round_prefer_floor": lambda v: np.floor(v) + (_past_tie(v) > _TIE_TOLERANCE),
                "round_prefer_ceil": lambda v: np.floor(v) + (_past_tie(v) >= -_TIE_TOLERANCE),
                "floor": np.floor,
                "ceil": np.ceil,
            }
            rounded = rules[nearest_mode](at)
            x = np.take(x, np.clip(rounded, 0, last).astype(np.int64), axis=axis)
            continue
        at = np.clip(at, 0, last)
        low = np.floor(at).astype(np.int64)
        high = np.minimum(low + 1, last)
        share = (at - low).astype(np.float32)
        share = share.reshape([-1 if i == axis else 1 for i in range(x.ndim)])
        x = np.take(x, low, axis=axis) * (1 - share) + np.take(x, high, axis=axis) * share
    return x


def _targets(
    shape: tuple[int, ...],
    axes: list[int],
    scales: Sequence[float] | None,
    sizes: Sequence[int] | None,
    policy: str,
) -> list[tuple[int, float, int]]:
    """Returns (axis, scale, output size) of every resized axis."""
    if sizes is None:
        assert scales is not None
        return [
            (axis, float(s), int(np.floor(np.float32(shape[axis]) * np.float32(s))))
            for axis, s in zip(axes, scales, strict=True)
        ]
    ratios = [size / shape[axis] for axis, size in zip(axes, sizes, strict=True)]
    if policy == "stretch":
        return [(a, r, int(n)) for a, r, n in zip(axes, ratios, sizes, strict=True)]
    ratio = min(ratios) if policy == "not_larger" else max(ratios)
    return [(a, ratio, math.floor(ratio * shape[a] + 0.5)) for a in axes]


def _past_tie(at: np.ndarray) -> np.ndarray:
    """Returns how far past the middle between two cells each position lies, f32, at.shape."""
    return at - np.floor(at) - np.float32(0.5)


def _source_positions(size: int, out: int, scale: float, coordinates: str) -> np.ndarray:
    """Returns f32[out]: where each output cell lies in the input, to onnxruntime's last bit."""
    cells = np.arange(out, dtype=np.float32)
    s = np.float32(scale)
    half = np.float32(0.5)
    if coordinates == "asymmetric":
        return cells / s
    if coordinates == "align_corners":
        return cells * np.float32(size - 1) / np.float32(max(1, out - 1))
    if coordinates == "pytorch_half_pixel" and out == 1:
        return np.zeros(1, dtype=np.float32)
    if coordinates == "half_pixel_symmetric":
        adjustment = np.float32(out) / (s * np.float32(size))
        offset = np.float32(size) / np.float32(2) * (np.float32(1) - adjustment)
        at = float(offset) + (cells.astype(np.float64) + 0.5) / float(s) - 0.5
        return at.astype(np.float32)
    return (cells + half) / s - half


def pad(
    x: np.ndarray, begins: Sequence[int], ends: Sequence[int], mode: str, value: Any
) -> np.ndarray:
    """Pads every axis of x, any dtype; negative amounts crop (first). Modes as ONNX names them."""
    crop = tuple(
        slice(max(0, -b), n - max(0, -e)) for b, e, n in zip(begins, ends, x.shape, strict=True)
    )
    widths = [(max(0, b), max(0, e)) for b, e in zip(begins, ends, strict=True)]
    x = x[crop]
    if mode == "constant":
        return np.pad(x, widths, constant_values=value)
    if mode == "reflect":
        return np.pad(x, widths, mode="reflect")
    return np.pad(x, widths, mode="edge" if mode == "edge" else "wrap")


def split_heads(x: np.ndarray, heads: int | None) -> np.ndarray:
    """Returns x [N, tokens, heads * size] as [N, heads, tokens, size]; without heads, x is that."""
    if not heads:
        return x
    return x.reshape(*x.shape[:2], heads, -1).swapaxes(1, 2)


def attention(
    q: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
    mask: np.ndarray | None,
    alpha: float,
    zero_nan: bool = False,
) -> np.ndarray:
    """Attention of q [N, H, S, D] to k [N, G, T, D] and v [N, G, T, E]; H is a multiple of G.

    With `zero_nan`, a softmax that is NaN is 0 instead.
    """
    repeats = q.shape[1] // k.shape[1]
    k, v = np.repeat(k, repeats, axis=1), np.repeat(v, repeats, axis=1)
    scores = np.matmul(q, k.swapaxes(-1, -2)) * np.float32(alpha)
    scores = scores if mask is None else scores + mask
    with np.errstate(invalid="ignore"):
        shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
        shares /= shares.sum(axis=-1, keepdims=True)
    if zero_nan:
        shares = np.where(np.isnan(shares), np.float32(0), shares)
    return np.asarray(np.matmul(shares, v))


@dataclasses.dataclass(frozen=True)
class RecurrentWeights:
    """What a recurrent layer multiplies its state with.

    `candidate` [H, H]: of a GRU whose last gate takes the state after the reset; `weight` has the
    other two gates then. `peephole` [3 H]: of an LSTM's gates i, o and f.
    """

    weight: np.ndarray
    bias: np.ndarray | None = None
    candidate: np.ndarray | None = None
    peephole: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class RecurrentCell:
    """What a recurrent layer does at each step.

    `kind` is "rnn", "lstm" or "gru"; `functions` are f, g and h, as far as the kind has them: name,
    alpha, beta. With `input_forget` an LSTM's forget gate is 1 - its input gate.
    """

    kind: str
    functions: Sequence[tuple[str, float, float]]
    clip: float | None = None
    reverse: bool = False
    input_forget: bool = False


def recurrent(
    x: np.ndarray,
    cell: RecurrentCell,
    weights: RecurrentWeights,
    initial: tuple[np.ndarray | None, np.ndarray | None],
    lengths: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Runs the steps of `cell` over x [T, N, gates H], already projected.

    Returns:
        The states [T, N, H] of all steps, zero behind the end of a sequence; the last state and
        the last cell [N, H].
    """
    steps, batch = x.shape[:2]
    hidden = weights.weight.shape[1]
    y = np.zeros((steps, batch, hidden), np.float32)
    h, c = (
        np.zeros((batch, hidden), np.float32) if state is None else state.copy()
        for state in initial
    )
    ends = np.full(batch, steps) if lengths is None else np.clip(lengths, 0, steps)
    if lengths is not None:
        h[ends == 0] = c[ends == 0] = 0
    rows = np.arange(batch)

    def gate(number: int, values: np.ndarray) -> np.ndarray:
        bound = None if cell.clip is None else np.float32(cell.clip)
        bounded = values if bound is None else np.clip(values, -bound, bound)
        return activate(bounded, *cell.functions[number])

    for step in range(steps):
        active = rows[step < ends]
        if active.size == 0:
            break
        at = ends[active] - 1 - step if cell.reverse else np.full(active.size, step)
        before = h[active]
        product = before @ weights.weight.T
        product = product if weights.bias is None else product + weights.bias
        given = np.split(x[at, active], x.shape[2] // hidden, axis=1)
        from_state = np.split(product, product.shape[1] // hidden, axis=1)
        if cell.kind == "rnn":
            h[active] = gate(0, given[0] + from_state[0])
        elif cell.kind == "gru":
            update = gate(0, given[0] + from_state[0])
            reset = gate(0, given[1] + from_state[1])
            if weights.candidate is None:
                last = reset * from_state[2]
            else:
                last = (reset * before) @ weights.candidate.T
            h[active] = (1 - update) * gate(1, given[2] + last) + update * before
        else:
            peephole = np.zeros(3 * hidden, np.float32)
            if weights.peephole is not None:
                peephole = weights.peephole
            peep_i, peep_o, peep_f = np.split(peephole, 3)
            sums = [a + b for a, b in zip(given, from_state, strict=True)]
            given_in = gate(0, sums[0] + peep_i * c[active])
            kept = 1 - given_in if cell.input_forget else gate(0, sums[2] + peep_f * c[active])
            c[active] = kept * c[active] + given_in * gate(1, sums[3])
            output = gate(0, sums[1] + peep_o * c[active])
            h[active] = output * activate(c[active], *cell.functions[2])
        y[at, active] = h[active]
    return y, h, c
