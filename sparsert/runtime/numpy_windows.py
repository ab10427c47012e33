"""Convolutions and pools in NumPy: the operators of the sparsert opset that go over windows.

Arrays are f32 unless said otherwise. Layouts: x [N, C, spatial...], of any spatial rank.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np


def window_of(attributes: dict[str, Any], rank: int) -> dict[str, Any]:
    """Returns the attributes of a window over `rank` dimensions, absent ones as their defaults."""
    ones = [1] * rank
    return {
        "strides": attributes.get("strides") or ones,
        "pads": attributes.get("pads"),
        "dilations": attributes.get("dilations") or ones,
        "auto_pad": attributes.get("auto_pad"),
    }


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
