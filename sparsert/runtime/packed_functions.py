"""The operators on packed bytes in NumPy: the definition that every kernel is tested with.

A packed tensor is u32 [N, P, spatial...]: each element holds the bytes of four successive channels,
the first one lowest, P = ceil(channels / 4). A byte stands for (byte - zero) * scale. Arithmetic is
f32, every operation rounded on its own; halves are rounded to even.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_LANES = 4


def pack(levels: np.ndarray, padding: int) -> np.ndarray:
    """Returns u8 [N, C, ...] as u32 [N, ceil(C/4), ...]; channels beyond C hold `padding`."""
    batch, channels, *rest = levels.shape
    groups = -(-channels // _LANES)
    filled = np.full((batch, groups * _LANES, *rest), padding, np.uint8)
    filled[:, :channels] = levels
    parts = filled.reshape(batch, groups, _LANES, *rest).astype(np.uint32)
    shifts = np.arange(0, 32, 8, dtype=np.uint32).reshape(_LANES, *[1] * len(rest))
    return np.asarray(np.bitwise_or.reduce(parts << shifts, axis=2).astype(np.uint32))


def unpack(packed: np.ndarray, channels: int | None = None) -> np.ndarray:
    """Returns the bytes u8 [N, C, ...] of u32 [N, P, ...]; without `channels`, C is 4 P."""
    batch, groups, *rest = packed.shape
    shifts = np.arange(0, 32, 8, dtype=np.uint32).reshape(_LANES, *[1] * len(rest))
    parts = (packed[:, :, None] >> shifts).astype(np.uint8)
    return parts.reshape(batch, groups * _LANES, *rest)[:, :channels]


def to_bytes(y: np.ndarray, zero: int, low: int, high: int) -> np.ndarray:
    """Returns clamp(round(y) + zero, low, high) as u8; NaN becomes low."""
    levels = np.rint(y.astype(np.float32, copy=False)) + np.float32(zero)
    return np.minimum(np.fmax(levels, np.float32(low)), np.float32(high)).astype(np.uint8)


def quantize(x: np.ndarray, scale: float, quant: Sequence[int]) -> np.ndarray:
    """QuantizePacked: f32 to packed bytes; quant = [zero, low, high]."""
    with np.errstate(all="ignore"):
        return pack(to_bytes(x / np.float32(scale), *quant), quant[0])


def range_of(x: np.ndarray) -> tuple[np.float32, int]:
    """Returns the scale and zero point that map the range of x and 0 onto the bytes 0 to 255.

    NaN has no part in the range; a zero point of NaN is 255.
    """
    low, high = (end(x, axis=None, initial=0) for end in (np.fmin.reduce, np.fmax.reduce))
    with np.errstate(all="ignore"):
        scale = np.float32(1) if low == high else np.float32((high - low) / np.float32(255))
        level = -low / scale
    return scale, int(np.rint(max(level, np.float32(0)))) if level < 255 else 255


def dequantize(packed: np.ndarray, scale: float, zero: int, channels: int) -> np.ndarray:
    """DequantizePacked: packed bytes to f32 [N, channels, ...]."""
    if packed.shape[1] != -(-channels // _LANES):
        raise ValueError(f"{channels} channels are not in {packed.shape[1]} groups of four")
    return centred(unpack(packed, channels), zero).astype(np.float32) * np.float32(scale)


def centred(levels: np.ndarray, zero: int) -> np.ndarray:
    """Returns byte - zero as int32."""
    return levels.astype(np.int32) - np.int32(zero)


def requantize(
    total: np.ndarray, start: np.ndarray | None, scale: np.ndarray, quant: Sequence[int]
) -> np.ndarray:
    """Returns the bytes of sums int32 [N, M, ...]; quant = [zero, low, high]."""
    shape = (-1, *[1] * (total.ndim - 2))
    if start is not None:
        total = total + start.astype(np.int32).reshape(shape)
    return to_bytes(total.astype(np.float32) * scale.reshape(shape), *quant)


def add(
    a: np.ndarray,
    b: np.ndarray,
    alpha: float,
    beta: float,
    zeros: tuple[int, int],
    quant: Sequence[int],
) -> np.ndarray:
    """Returns the bytes of (a - zero_a) * alpha + (b - zero_b) * beta of u8 arrays."""
    if a.shape != b.shape:
        raise ValueError(f"the operands have shapes {a.shape} and {b.shape}")
    left = centred(a, zeros[0]).astype(np.float32) * np.float32(alpha)
    right = centred(b, zeros[1]).astype(np.float32) * np.float32(beta)
    return to_bytes(left + right, *quant)


def heads(x: np.ndarray, count: int, zero: int) -> np.ndarray:
    """Returns packed [N, heads * size / 4, T] as centred i64 [N, heads, T, size]."""
    levels = centred(unpack(x), zero).astype(np.int64)
    batch, _, tokens = levels.shape
    return levels.reshape(batch, count, -1, tokens).swapaxes(2, 3)


def step_bytes(y: np.ndarray, step: np.ndarray) -> np.ndarray:
    """Returns the bytes of a step [factor, scale, zero, low, high]."""
    inverse = np.float32(1) / step[1]
    return to_bytes(y * inverse, *(int(value) for value in step[2:]))


def rounded(y: np.ndarray, step: np.ndarray) -> np.ndarray:
    """Returns what the bytes of a step stand for; a step with scale 0 rounds nothing."""
    if step[1] == 0:
        return y
    return centred(step_bytes(y, step), int(step[2])).astype(np.float32) * step[1]


def shares(scores: np.ndarray) -> np.ndarray:
    """Returns the softmax over the last axis; 0 where all scores are -infinity."""
    most = scores.max(axis=-1, keepdims=True)
    with np.errstate(invalid="ignore"):
        e = np.exp(scores - np.where(np.isneginf(most), np.float32(0), most))
    total = e.sum(axis=-1, keepdims=True)
    return np.asarray(e / np.where(total == 0, np.float32(1), total))
