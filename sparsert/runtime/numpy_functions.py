"""The operators of the sparsert opset in NumPy: the definition that every backend is tested with.

Arrays are f32 unless said otherwise. Layouts: x [N, C, spatial...], spatial rank 1 or 2 (any rank
works here).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
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


def window_pads(
    size: Sequence[int],
    reach: Sequence[int],
    strides: Sequence[int],
    pads: Sequence[int] | None,
    auto_pad: str | None,
) -> tuple[list[int], list[int]]:
    """Returns the begins and ends of the padding, with auto_pad resolved.

    Args:
        size: spatial input dimensions.
        reach: (kernel - 1) * dilation + 1 of each.
        strides: of each.
        pads: begins then ends.
        auto_pad: NOTSET, VALID, SAME_UPPER or SAME_LOWER.
    """
    count = len(size)
    if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        begins, ends = [], []
        for i in range(count):
            out = -(-size[i] // strides[i])
            total = max(0, (out - 1) * strides[i] + reach[i] - size[i])
            small, large = total // 2, total - total // 2
            begins.append(small if auto_pad == "SAME_UPPER" else large)
            ends.append(large if auto_pad == "SAME_UPPER" else small)
        return begins, ends
    if auto_pad == "VALID" or not pads:
        return [0] * count, [0] * count
    return list(pads[:count]), list(pads[count:])


def _index(*parts: Any) -> Any:
    """Returns an index of slices, numbers and Ellipsis."""
    return tuple(parts)


def _taps(kernel: Sequence[int]) -> list[tuple[int, ...]]:
    return list(np.ndindex(*kernel))


def _pad(x: np.ndarray, begins: list[int], ends: list[int], value: float) -> np.ndarray:
    if not any(begins) and not any(ends):
        return x
    widths = [(0, 0), (0, 0), *zip(begins, ends, strict=True)]
    return np.pad(x, widths, constant_values=value)


def _tap_slice(
    tap: tuple[int, ...], strides: Sequence[int], dilations: Sequence[int], out: Sequence[int]
) -> tuple[slice, ...]:
    starts = [t * d for t, d in zip(tap, dilations, strict=True)]
    return tuple(
        slice(start, start + (n - 1) * s + 1, s)
        for start, n, s in zip(starts, out, strides, strict=True)
    )


def conv(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None,
    strides: Sequence[int],
    pads: Sequence[int] | None,
    dilations: Sequence[int],
    group: int,
    auto_pad: str | None,
) -> np.ndarray:
    """Convolution: x [N, C, spatial], weight [M, C/group, kernel], bias [M] -> [N, M, out]."""
    kernel = weight.shape[2:]
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    begins, ends = window_pads(x.shape[2:], reach, strides, pads, auto_pad)
    padded = _pad(x, begins, ends, 0.0)
    out = [(n - r) // s + 1 for n, r, s in zip(padded.shape[2:], reach, strides, strict=True)]
    batch, channels = x.shape[:2]
    rows = weight.shape[0]
    dtype = x.dtype if x.dtype.kind == "i" else np.dtype(np.float32)
    y = np.zeros((batch, group, rows // group, math.prod(out)), dtype=dtype)
    for tap in _taps(kernel):
        part = padded[_index(..., *_tap_slice(tap, strides, dilations, out))]
        part = part.reshape(batch, group, channels // group, math.prod(out))
        matrix = weight[_index(slice(None), slice(None), *tap)].reshape(group, rows // group, -1)
        y += np.matmul(matrix, part) if channels != group else matrix * part
    y = y.reshape(batch, rows, *out)
    return y if bias is None else y + bias.reshape(-1, *[1] * len(kernel))


def conv_transpose(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None,
    strides: Sequence[int],
    pads: Sequence[int] | None,
    dilations: Sequence[int],
    group: int,
    auto_pad: str | None,
    output_padding: Sequence[int] | None,
    output_shape: Sequence[int] | None,
) -> np.ndarray:
    """Transposed convolution: weight [C, M/group, kernel], bias [M] -> [N, M, out]."""
    kernel = weight.shape[2:]
    count = len(kernel)
    size = x.shape[2:]
    extra = list(output_padding or [0] * count)
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    full = [strides[i] * (size[i] - 1) + reach[i] for i in range(count)]
    if output_shape or auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        wanted = (
            list(output_shape[-count:])
            if output_shape
            else [n * s for n, s in zip(size, strides, strict=True)]
        )
        begins = []
        for i in range(count):
            total = max(0, full[i] + extra[i] - wanted[i])
            begins.append(total // 2 if auto_pad == "SAME_UPPER" else total - total // 2)
    else:
        begins, ends = list((pads or [0] * count)[:count]), list((pads or [0] * count)[-count:])
        wanted = [full[i] + extra[i] - begins[i] - ends[i] for i in range(count)]
    batch, channels = x.shape[:2]
    width = weight.shape[1]
    room = [max(full[i], begins[i] + wanted[i]) for i in range(count)]
    y = np.zeros((batch, group, width, *room), dtype=np.float32)
    flat = x.reshape(batch, group, channels // group, -1)
    for tap in _taps(kernel):
        matrix = weight[_index(slice(None), slice(None), *tap)].reshape(
            group, channels // group, width
        )
        part = np.matmul(matrix.transpose(0, 2, 1), flat).reshape(batch, group, width, *size)
        y[_index(..., *_tap_slice(tap, strides, dilations, size))] += part
    crop = tuple(slice(b, b + n) for b, n in zip(begins, wanted, strict=True))
    y = y[_index(..., *crop)].reshape(batch, group * width, *wanted)
    return y if bias is None else y + bias.reshape(-1, *[1] * count)


def pool(
    x: np.ndarray,
    kind: str,
    kernel: Sequence[int],
    strides: Sequence[int],
    pads: Sequence[int] | None,
    dilations: Sequence[int],
    auto_pad: str | None,
    ceil_mode: bool,
    count_include_pad: bool,
) -> np.ndarray:
    """Max or average ("max", "average") over windows: x [N, C, spatial] -> [N, C, out].

    With ceil_mode, a window that would start in the end padding is dropped; cells past the
    padding never count.
    """
    windows = PoolWindows.of(x.shape[2:], kernel, strides, pads, dilations, auto_pad, ceil_mode)
    if kind == "max":
        y = np.full((*x.shape[:2], *windows.out), -np.inf, dtype=np.float32)
        for part in windows.parts(x, -np.inf):
            np.maximum(y, part, out=y)
        return y
    y = windows.sum(x.astype(np.float32, copy=False))
    return np.asarray(y / windows.counts(count_include_pad))


@dataclasses.dataclass(frozen=True)
class PoolWindows:
    """Where the windows of a pool lie; begins and ends are the padding's."""

    size: tuple[int, ...]
    kernel: Sequence[int]
    strides: Sequence[int]
    dilations: Sequence[int]
    begins: list[int]
    ends: list[int]
    out: list[int]
    beyond: list[int]  # cells of the last windows past the padding

    @staticmethod
    def of(
        size: tuple[int, ...],
        kernel: Sequence[int],
        strides: Sequence[int],
        pads: Sequence[int] | None,
        dilations: Sequence[int],
        auto_pad: str | None,
        ceil_mode: bool,
    ) -> PoolWindows:
        """Lays out the windows over planes of some size."""
        reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
        begins, ends = window_pads(size, reach, strides, pads, auto_pad)
        out, beyond = [], []
        for i in range(len(kernel)):
            span = size[i] + begins[i] + ends[i] - reach[i]
            n = (-(-span // strides[i]) if ceil_mode else span // strides[i]) + 1
            if ceil_mode and (n - 1) * strides[i] >= size[i] + begins[i]:
                n -= 1
            out.append(n)
            beyond.append(max(0, (n - 1) * strides[i] + reach[i] - size[i] - begins[i] - ends[i]))
        return PoolWindows(size, kernel, strides, dilations, begins, ends, out, beyond)

    def parts(self, x: np.ndarray, padding: float) -> Iterator[np.ndarray]:
        """Yields, for each tap, its cell of every window."""
        far = [e + b for e, b in zip(self.ends, self.beyond, strict=True)]
        padded = _pad(x, self.begins, far, padding)
        for tap in _taps(self.kernel):
            yield padded[_index(..., *_tap_slice(tap, self.strides, self.dilations, self.out))]

    def sum(self, x: np.ndarray) -> np.ndarray:
        """Returns the sum of each window in the type of x."""
        y = np.zeros((*x.shape[:2], *self.out), dtype=x.dtype)
        for part in self.parts(x, 0):
            y += part
        return y

    def counts(self, count_include_pad: bool) -> np.ndarray:
        """Returns how many cells of each window count, f32 [1, 1, out]."""
        ones = np.ones((1, 1, *self.size), dtype=np.float32)
        counted = _pad(ones, self.begins, self.ends, 1.0 if count_include_pad else 0.0)
        inner = dataclasses.replace(self, begins=[0] * len(self.out), ends=[0] * len(self.out))
        return inner.sum(counted)


def pool_sums(
    x: np.ndarray,
    kernel: Sequence[int],
    strides: Sequence[int],
    pads: Sequence[int] | None,
    dilations: Sequence[int],
    auto_pad: str | None,
    ceil_mode: bool,
    count_include_pad: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the exact sum of each window of integers x, and its count of cells in f32."""
    windows = PoolWindows.of(x.shape[2:], kernel, strides, pads, dilations, auto_pad, ceil_mode)
    return windows.sum(x), windows.counts(count_include_pad)


def max_places(
    x: np.ndarray,
    y: np.ndarray,
    kernel: Sequence[int],
    strides: Sequence[int],
    pads: Sequence[int] | None,
    dilations: Sequence[int],
    auto_pad: str | None,
    column_major: bool,
) -> np.ndarray:
    """Returns where the maxima `y` of windows first stand in `x`, numbered through all of it."""
    size, out = x.shape[2:], y.shape[2:]
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    begins, _ = window_pads(size, reach, strides, pads, auto_pad)
    ends = [
        max(0, (n - 1) * s + r - have - begin)
        for n, s, r, have, begin in zip(out, strides, reach, size, begins, strict=True)
    ]
    numbers = np.arange(np.prod(size)).reshape(size, order="F" if column_major else "C")
    inside = _pad(numbers[None, None].astype(np.float64), begins, ends, -1.0)
    padded = _pad(x, begins, ends, -np.inf)
    places = np.full(y.shape, -1, np.int64)
    for tap in _taps(kernel):
        where = (slice(None), slice(None), *_tap_slice(tap, strides, dilations, out))
        at = inside[where].astype(np.int64)
        places = np.where((places < 0) & (padded[where] == y) & (at >= 0), at, places)
    planes = np.arange(x.shape[0] * x.shape[1]).reshape(*x.shape[:2], *[1] * len(size))
    return np.maximum(places, 0) + planes * numbers.size


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
