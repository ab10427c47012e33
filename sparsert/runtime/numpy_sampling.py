"""Reading images at places between their elements, in NumPy."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np


def grid_sample(
    x: np.ndarray, grid: np.ndarray, mode: str, padding: str, align_corners: bool
) -> np.ndarray:
    """Returns ONNX's GridSample, with cubic borders as ONNX Runtime and PyTorch have them.

    Args:
        x: [N, C, sizes].
        grid: [N, outputs, axes], the last axis of x first; -1 to 1 across x.
        mode: "nearest", "linear" or "cubic".
        padding: "zeros", "border" or "reflection".
        align_corners: -1 and 1 are the centers of the outermost elements, not their outer edges.
    """
    sizes = x.shape[2:]
    taps = [
        _grid_taps(grid[..., -1 - axis].astype(np.float64), size, mode, padding, align_corners)
        for axis, size in enumerate(sizes)
    ]
    flat = x.reshape(*x.shape[:2], -1)
    y = np.zeros((*x.shape[:2], *grid.shape[1:-1]))
    for chosen in itertools.product(*taps):
        place: np.ndarray = np.zeros(grid.shape[:-1], np.int64)
        weight = np.ones(grid.shape[:-1])
        for size, (at, factor) in zip(sizes, chosen, strict=True):
            place = place * size + np.where(at < 0, 0, at)
            weight = weight * np.where(at < 0, 0, factor)
        index = place.reshape(len(x), 1, -1)
        values = np.take_along_axis(flat, index, axis=2).reshape(y.shape)
        y += np.where(weight[:, None] == 0, 0, values) * weight[:, None]
    return y.astype(x.dtype)


def _mirrored(at: np.ndarray, low: float, high: float) -> np.ndarray:
    if high <= low:
        return np.full_like(at, low)
    beyond = np.abs(at - low) % (2 * (high - low))
    return low + np.minimum(beyond, 2 * (high - low) - beyond)


def _grid_taps(
    values: np.ndarray, size: int, mode: str, padding: str, corners: bool
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns the taps along one axis: elements, -1 for what is outside, and weights."""
    at = (values + 1) / 2 * (size - 1) if corners else ((values + 1) * size - 1) / 2
    at = np.nan_to_num(np.clip(at, -1e9, 1e9), nan=-1e9)
    at = np.rint(at) if mode == "nearest" else at
    low, high = (0.0, size - 1.0) if corners else (-0.5, size - 0.5)
    if padding == "border" and mode != "cubic":
        at = np.clip(at, 0, size - 1)
    elif padding == "reflection":
        at = np.where((at < low) | (at > high), _mirrored(at, low, high), at)
    first = np.floor(at)
    taps = []
    for step in {"nearest": (0,), "linear": (0, 1), "cubic": (-1, 0, 1, 2)}[mode]:
        place = first + step
        far = np.abs(place - at)
        if mode == "cubic":
            near = (1.25 * far - 2.25) * far * far + 1
            weight = np.where(far <= 1, near, ((-0.75 * far + 3.75) * far - 6) * far + 3)
        else:
            weight = 1 - far
        inside = (place >= 0) & (place < size)
        if padding == "zeros":
            place = np.where(inside, place, -1)
        elif padding == "reflection":
            place = np.where(inside, place, np.trunc(_mirrored(place, low, high)))
        if padding != "zeros":
            place = np.clip(place, 0, size - 1)
        taps.append((place.astype(np.int64), weight))
    return taps


def deform_columns(
    x: np.ndarray,
    offsets: np.ndarray,
    mask: np.ndarray | None,
    kernel: Sequence[int],
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int],
    groups: int,
) -> np.ndarray:
    """Returns what the taps of a deformable convolution read.

    Args:
        x: [N, C, H, W].
        offsets: [N, groups * taps * 2, outputs], height before width.
        mask: [N, groups * taps, outputs], or None.
        kernel: height and width, as all that follows but the pads, which are begins, then ends.
        strides: of the windows.
        pads: of x, as zeros.
        dilations: of the kernel.
        groups: so many successive parts of the channels have offsets of their own.

    Returns:
        [N, C * taps, outputs].
    """
    n, channels, height, width = x.shape
    rows, columns = offsets.shape[2:]
    taps = kernel[0] * kernel[1]
    moved = offsets.reshape(n, groups, taps, 2, rows, columns).astype(np.float64)
    k = np.arange(taps)
    tap_h = (k // kernel[1] * dilations[0] - pads[0])[:, None, None]
    tap_w = (k % kernel[1] * dilations[1] - pads[1])[:, None, None]
    h = moved[:, :, :, 0] + tap_h + (np.arange(rows) * strides[0])[:, None]
    w = moved[:, :, :, 1] + tap_w + np.arange(columns) * strides[1]
    low_h, low_w = np.floor(h), np.floor(w)
    parts = x.reshape(n, groups, channels // groups, height * width)
    y = np.zeros((n, groups, channels // groups, taps, rows, columns))
    for at_h, weight_h in ((low_h, 1 - (h - low_h)), (low_h + 1, h - low_h)):
        for at_w, weight_w in ((low_w, 1 - (w - low_w)), (low_w + 1, w - low_w)):
            inside = (at_h >= 0) & (at_h < height) & (at_w >= 0) & (at_w < width)
            place = np.where(inside, at_h * width + at_w, 0).astype(np.int64)
            flat = place.reshape(n, groups, 1, -1)
            values = np.take_along_axis(parts, flat, axis=3).reshape(y.shape)
            weight = np.where(inside, weight_h * weight_w, 0)[:, :, None]
            y += np.where(weight == 0, 0, values) * weight
    if mask is not None:
        y *= mask.reshape(n, groups, 1, taps, rows, columns)
    return y.reshape(n, channels * taps, rows, columns).astype(x.dtype)
