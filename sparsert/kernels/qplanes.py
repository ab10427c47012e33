"""Passes over packed bytes: to and from floats, sums, tables, pools.

x and y are flat; a packed array is u32, and y has the bits of u32 as f32 where it is of bytes. A
task is a packed plane of one image: four channels.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sparsert.kernels.activations import activate
from sparsert.kernels.compiling import kernel
from sparsert.kernels.lanes import (
    LANES,
    between,
    load,
    load_first,
    over,
    plus,
    store,
    store_first,
    times,
    zeros,
)
from sparsert.kernels.planes import copy
from sparsert.kernels.qlanes import (
    add_dot,
    add_dot_of,
    byte_of,
    floats,
    ints,
    larger_bytes,
    no_sums,
    plus_int,
    sum_of,
    to_floats,
    with_byte,
)
from sparsert.kernels.qrows import quantised, summed


@kernel
def quantize_planes(
    x: Any, y: Any, sizes: Any, scale: float, quant: Any, begin: int, end: int
) -> None:
    """Bytes y = clamp(round(x / scale) + zero, low, high) of floats.

    sizes: channels, packed planes, columns; quant: zero, low, high. Channels that do not exist are
    the zero point.
    """
    channels, planes, columns = sizes
    for task in range(begin, end):
        image, plane = task // planes, task % planes
        for i in range(0, columns, LANES):
            wide = min(LANES, columns - i)
            packed = no_sums(1)
            for c in range(4):
                levels = plus(zeros(1), quant[0])
                channel = 4 * plane + c
                if channel < channels:
                    at = (image * channels + channel) * columns + i
                    levels = quantised(over(load_first(zeros(1), x, at, wide), scale), quant)
                packed = with_byte(packed, levels, c)
            store_first(floats(packed), y, task * columns + i, wide)


@kernel
def dequantize_planes(
    x: Any, y: Any, sizes: Any, scale: float, zero: float, begin: int, end: int
) -> None:
    """Floats y = (byte - zero) * scale; sizes: channels, packed planes, columns."""
    channels, planes, columns = sizes
    for task in range(begin, end):
        image, plane = task // planes, task % planes
        for i in range(0, columns, LANES):
            wide = min(LANES, columns - i)
            packed = ints(load_first(zeros(1), x, task * columns + i, wide))
            for c in range(min(4, channels - 4 * plane)):
                at = (image * channels + 4 * plane + c) * columns + i
                part = times(plus(byte_of(packed, c), -zero), scale)
                store_first(part, y, at, wide)


@kernel
def add_planes(a: Any, b: Any, y: Any, columns: int, quant: Any, begin: int, end: int) -> None:
    """Bytes of the sum of two packed arrays; quant: as of qrows.summed()."""
    for i in range(begin * columns, end * columns, LANES):
        wide = min(LANES, end * columns - i)
        left = ints(load_first(zeros(1), a, i, wide))
        right = ints(load_first(zeros(1), b, i, wide))
        packed = no_sums(1)
        for c in range(4):
            packed = with_byte(packed, summed(byte_of(left, c), byte_of(right, c), quant), c)
        store_first(floats(packed), y, i, wide)


@kernel
def lookup_planes(x: Any, y: Any, table: Any, columns: int, begin: int, end: int) -> None:
    """Each byte becomes its entry of table, u8 [256]; x and y are u8, flat."""
    for i in range(begin * columns * 4, end * columns * 4):
        y[i] = table[x[i]]


@kernel
def max_planes(x: Any, y: Any, taps: Any, sizes: Any, segments: Any, begin: int, end: int) -> None:
    """The largest byte of each window.

    x is as planes.split_planes() leaves it, padded with 0; sizes: of one plane of x with its
    phases, of one plane of y, columns; taps and segments as of planes.pool_planes().
    """
    size, outputs, columns = sizes
    scratch = np.empty(columns + LANES, np.float32)
    for plane in range(begin, end):
        for i in range(0, columns, LANES):
            tile = no_sums(1)
            for tap in taps:
                tile = larger_bytes(tile, x, plane * size + tap + i)
            store(floats(tile), scratch, i)
        for s in range(segments.shape[0]):
            at = plane * outputs + segments[s, 1]
            copy(scratch, segments[s, 0], y, at, segments[s, 2])


@kernel
def average_planes(
    x: Any, y: Any, taps: Any, counts: Any, sizes: Any, segments: Any, alpha: float, quant: Any,
    begin: int, end: int,
) -> None:  # fmt: skip
    """Bytes of the mean of each window times alpha.

    x is padded with its zero point; counts: f32 [columns + LANES], by how much the sum of a window
    is divided; quant: zero point of x; zero, low and high of y. The rest is as of max_planes().
    """
    size, outputs, columns = sizes
    scratch = np.empty(columns + LANES, np.float32)
    for plane in range(begin, end):
        for i in range(0, columns, LANES):
            packed = no_sums(1)
            count = load(zeros(1), counts, i)
            for c in range(4):
                tile = plus_int(no_sums(1), -quant[0] * taps.shape[0])
                for tap in taps:
                    tile = add_dot(tile, np.int32(1 << 8 * c), x, plane * size + tap + i)
                mean = times(over(to_floats(tile), count), alpha)
                packed = with_byte(packed, quantised(mean, quant[1:]), c)
            store(floats(packed), scratch, i)
        for s in range(segments.shape[0]):
            at = plane * outputs + segments[s, 1]
            copy(scratch, segments[s, 0], y, at, segments[s, 2])


@kernel
def mean_planes(
    x: Any, y: Any, columns: int, alpha: float, quant: Any, begin: int, end: int
) -> None:
    """Bytes of the mean of each plane times alpha; quant as of average_planes()."""
    for plane in range(begin, end):
        packed = no_sums(1)
        for c in range(4):
            tile = no_sums(1)
            for i in range(0, columns, LANES):
                wide = min(LANES, columns - i)
                part = ints(load_first(zeros(1), x, plane * columns + i, wide))
                tile = add_dot_of(tile, np.int32(1 << 8 * c), part)
            total = sum_of(tile) - np.int32(quant[0]) * columns
            mean = times(over(plus(zeros(1), np.float32(total)), np.float32(columns)), alpha)
            packed = with_byte(packed, quantised(mean, quant[1:]), c)
        store_first(floats(packed), y, plane, 1)


@kernel
def change_planes(
    x: Any, y: Any, bias: Any, residual: Any, sizes: Any, scales: Any, quant: Any, act: Any,
    begin: int, end: int,
) -> None:  # fmt: skip
    """Floats or bytes of act((x - zero) * scale + bias + residual).

    sizes: channels, packed planes, columns; whether there is a bias; 0 without a residual, 1 for
    one of floats, 2 for one of bytes; whether y is of bytes. scales: of x and the residual, and
    what floats are multiplied with before they are rounded; quant: zeros of x and the residual;
    zero, low and high of y.
    """
    channels, planes, columns, has_bias, kind, is_bytes = sizes
    fn, low, high = act
    scratch = np.empty(LANES, np.float32)
    for task in range(begin, end):
        image, plane = task // planes, task % planes
        for i in range(0, columns, LANES):
            wide = min(LANES, columns - i)
            levels = ints(load_first(zeros(1), x, task * columns + i, wide))
            others = no_sums(1)
            if kind == 2:
                others = ints(load_first(zeros(1), residual, task * columns + i, wide))
            packed = no_sums(1)
            for c in range(4):
                channel = 4 * plane + c
                if channel >= channels:
                    packed = with_byte(packed, plus(zeros(1), quant[2]), c)
                    continue
                at = (image * channels + channel) * columns + i
                part = times(plus(byte_of(levels, c), -quant[0]), scales[0])
                if has_bias:
                    part = plus(part, bias[channel])
                if kind == 1:
                    part = plus(part, load_first(zeros(1), residual, at, wide))
                elif kind == 2:
                    part = plus(part, times(plus(byte_of(others, c), -quant[1]), scales[1]))
                if fn == 0:
                    part = between(part, low, high)
                else:
                    store(part, scratch, 0)
                    activate(scratch, 0, LANES, fn, low, high)
                    part = load(zeros(1), scratch, 0)
                if is_bytes:
                    packed = with_byte(packed, quantised(times(part, scales[2]), quant[2:]), c)
                else:
                    store_first(part, y, at, wide)
            if is_bytes:
                store_first(floats(packed), y, task * columns + i, wide)
