"""Convolutions and products of bytes: what rows.py does, four channels to an element.

Column k of a weight matrix [rows, columns] stands for the plane of packed inputs that begins
`shifts[k]` behind the first one: four channels and a tap of a window. A weight is an i32 of four
signed bytes, and is left out where all of them are 0. Sums are i32 and exact. With
z = f32(start + sum) * scale, every operation rounded on its own,

    f32:   y = act(z + bias + residual)
    bytes: y = clamp(round(z) + zero, low, high), half to even
    bytes with a residual r: q as above; y = clamp(round((q - zero) * alpha + (r - r_zero) * beta) +
           out_zero, out_low, out_high)

and four successive rows of bytes are packed into u32. A task is a tile of up to HEIGHT rows of one
image, and its sums go to scratch first. Arguments that the kernels share:

    x         u32, flat; kernels read whole tiles
    sizes     elements of one image of x; of one image of y; of one row of y, or of four packed
              ones; tiles; bands of HEIGHT rows; rows; whether there is a residual; whether y is of
              bytes
    tiles     i32 [tiles, 4]: first column, vectors, first and last segment
    segments  i32 [segments, 3]: first column in the tile, place in a row of y, columns
    start     i32 [rows]; scale f32 [rows]; bias f32 [rows]
    residual  like y; anything where sizes say that there is none
    y         f32, flat; where it is of bytes, the bits of u32
    end       act and quant
    act       of f32: number of the activation; its bounds or parameters
    quant     of bytes, nine f32: zero, low, high, alpha, beta, r_zero, out_zero, out_low, out_high
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sparsert.kernels.activations import activate
from sparsert.kernels.compiling import inner, kernel, maker
from sparsert.kernels.lanes import (
    LANES,
    between,
    load,
    load_first,
    plus,
    store,
    store_first,
    times,
    zeros,
)
from sparsert.kernels.qlanes import (
    add_dot,
    add_dots,
    add_gathered_dots,
    byte_of,
    floats,
    ints,
    no_sums,
    plus_int,
    rounded,
    sum_of,
    to_floats,
    with_byte,
)

# Vectors of the widest tile of one row, and of one of four rows: what registers can hold.
WIDEST = 8
WIDEST_OF_FOUR = 2 if LANES == 8 else 6
HEIGHT = 16
_STRIDE = WIDEST * LANES  # of the rows of scratch


@inner
def quantised(z: Any, quant: Any) -> Any:
    """Returns clamp(round(z) + zero, low, high) of a tile; quant = zero, low, high."""
    return between(plus(rounded(z), quant[0]), quant[1], quant[2])


@inner
def _scaled(scratch: Any, at: int, m: int, out: Any) -> Any:
    sums = plus_int(ints(load(zeros(1), scratch, at)), out[0][m])
    return times(to_floats(sums), out[1][m])


@inner
def summed(a: Any, b: Any, quant: Any) -> Any:
    """Returns the levels of a and b, less their zero points, times alpha and beta, quantised.

    quant: zero of a, alpha, beta, zero of b; zero, low and high of the sum.
    """
    left = times(plus(a, -quant[0]), quant[1])
    right = times(plus(b, -quant[3]), quant[2])
    return quantised(plus(left, right), quant[4:])


@inner
def _to_bytes(
    scratch: Any, place: Any, sizes: Any, tiles: Any, segments: Any, out: Any, quant: Any
) -> None:
    image, t, first, last = place
    residual, y = out[3], out[4]
    has_residual = sizes[6] != 0
    padding = quant[6] if has_residual else quant[0]
    sum_quant = (quant[0], quant[3], quant[4], quant[5], quant[6], quant[7], quant[8])
    for m in range(first, last, 4):
        row = image * sizes[1] + m // 4 * sizes[2]
        for s in range(tiles[t, 2], tiles[t, 3]):
            begin, at, count = segments[s, 0], row + segments[s, 1], segments[s, 2]
            for i in range(0, count, LANES):
                wide = min(LANES, count - i)
                other = no_sums(1)
                if has_residual:
                    other = ints(load_first(zeros(1), residual, at + i, wide))
                packed = no_sums(1)
                for c in range(4):
                    levels = plus(zeros(1), padding)
                    if m + c < last:
                        z = _scaled(scratch, (m + c - first) * _STRIDE + begin + i, m + c, out)
                        levels = quantised(z, quant)
                        if has_residual:
                            levels = summed(levels, byte_of(other, c), sum_quant)
                    packed = with_byte(packed, levels, c)
                store_first(floats(packed), y, at + i, wide)


@inner
def _to_floats(
    scratch: Any, place: Any, sizes: Any, tiles: Any, segments: Any, out: Any, act: Any
) -> None:
    image, t, first, last = place
    bias, residual, y = out[2], out[3], out[4]
    fn, low, high = act
    for m in range(first, last):
        row = image * sizes[1] + m * sizes[2]
        for s in range(tiles[t, 2], tiles[t, 3]):
            begin, at, count = segments[s, 0], row + segments[s, 1], segments[s, 2]
            for i in range(0, count, LANES):
                wide = min(LANES, count - i)
                part = _scaled(scratch, (m - first) * _STRIDE + begin + i, m, out)
                part = plus(part, bias[m])
                if sizes[6]:
                    part = plus(part, load_first(zeros(1), residual, at + i, wide))
                if fn == 0:
                    part = between(part, low, high)
                store_first(part, y, at + i, wide)
            if fn:
                activate(y, at, at + count, fn, low, high)


@inner
def _finish(
    scratch: Any, place: Any, sizes: Any, tiles: Any, segments: Any, out: Any, end: Any
) -> None:
    act, quant = end
    if sizes[7]:
        _to_bytes(scratch, place, sizes, tiles, segments, out, quant)
    else:
        _to_floats(scratch, place, sizes, tiles, segments, out, act)


@inner
def _place(task: int, sizes: Any) -> tuple[int, int, int, int]:
    """The image, tile, first and last row of a task."""
    rest, band = task // sizes[4], task % sizes[4]
    first = band * HEIGHT
    return rest // sizes[3], rest % sizes[3], first, min(first + HEIGHT, sizes[5])


@inner
def _place_of_four(task: int, sizes: Any) -> tuple[int, int, int, int]:
    """The same of a task of one column and four rows."""
    image, four = task // sizes[4], task % sizes[4]
    return image, task - task, 4 * four, min(4 * four + 4, sizes[5])


@maker
def _scratch() -> np.ndarray:
    return np.empty(HEIGHT * _STRIDE, np.int32)


@inner
def _csr_tile(
    zero: Any, x: Any, start: int, first: int, last: int, weights: Any, scratch: Any
) -> None:
    values, shifts, row_ptr = weights
    for m in range(first, last):
        tile = zero
        for p in range(row_ptr[m], row_ptr[m + 1]):
            tile = add_dot(tile, values[p], x, start + shifts[p])
        store(floats(tile), scratch, (m - first) * _STRIDE)


@kernel
def qrows_csr(
    x: Any, weights: Any, sizes: Any, tiles: Any, segments: Any, out: Any, end: Any,
    first_task: int, last_task: int,
) -> None:  # fmt: skip
    """Weights (values i32, shift of each, row_ptr)."""
    scratch = _scratch()
    for task in range(first_task, last_task):
        place = _place(task, sizes)
        image, t, first, last = place
        start = image * sizes[0] + tiles[t, 0]
        wide = tiles[t, 1]
        if wide > 6:
            _csr_tile(no_sums(8), x, start, first, last, weights, scratch)
        elif wide > 4:
            _csr_tile(no_sums(6), x, start, first, last, weights, scratch)
        elif wide > 2:
            _csr_tile(no_sums(4), x, start, first, last, weights, scratch)
        elif wide == 2:
            _csr_tile(no_sums(2), x, start, first, last, weights, scratch)
        else:
            _csr_tile(no_sums(1), x, start, first, last, weights, scratch)
        _finish(scratch, place, sizes, tiles, segments, out, end)


@inner
def _four_tile(
    zero: Any, x: Any, start: int, first: int, last: int, weights: Any, scratch: Any
) -> None:
    values, shifts, row_ptr = weights
    for m in range(first, last, 4):
        a, b, c, d = zero, zero, zero, zero
        for p in range(row_ptr[m // 4], row_ptr[m // 4 + 1]):
            at = start + shifts[p]
            a = add_dot(a, values[4 * p], x, at)
            b = add_dot(b, values[4 * p + 1], x, at)
            c = add_dot(c, values[4 * p + 2], x, at)
            d = add_dot(d, values[4 * p + 3], x, at)
        row = (m - first) * _STRIDE
        store(floats(a), scratch, row)
        store(floats(b), scratch, row + _STRIDE)
        store(floats(c), scratch, row + 2 * _STRIDE)
        store(floats(d), scratch, row + 3 * _STRIDE)


@kernel
def qrows_four(
    x: Any, weights: Any, sizes: Any, tiles: Any, segments: Any, out: Any, end: Any,
    first_task: int, last_task: int,
) -> None:  # fmt: skip
    """Weights in blocks of 4 rows: (values i32, shift of each block, row_ptr); dense if all are."""
    scratch = _scratch()
    for task in range(first_task, last_task):
        place = _place(task, sizes)
        image, t, first, last = place
        start = image * sizes[0] + tiles[t, 0]
        wide = tiles[t, 1]
        if wide > 4:
            _four_tile(no_sums(6), x, start, first, last, weights, scratch)
        elif wide > 2:
            _four_tile(no_sums(4), x, start, first, last, weights, scratch)
        elif wide == 2:
            _four_tile(no_sums(2), x, start, first, last, weights, scratch)
        else:
            _four_tile(no_sums(1), x, start, first, last, weights, scratch)
        _finish(scratch, place, sizes, tiles, segments, out, end)


@kernel
def qvector_dense(
    x: Any, weights: Any, sizes: Any, tiles: Any, segments: Any, out: Any, end: Any,
    first_task: int, last_task: int,
) -> None:  # fmt: skip
    """Of one column: weights (values i32 [rows, whole vectors]); a task is four rows."""
    values, width = weights
    scratch = _scratch()
    for task in range(first_task, last_task):
        place = _place_of_four(task, sizes)
        image, _, first, last = place
        for m in range(first, last):
            tile = no_sums(1)
            for k in range(0, width, LANES):
                tile = add_dots(tile, values, m * width + k, x, image * sizes[0] + k)
            scratch[(m - first) * _STRIDE] = sum_of(tile)
        _finish(scratch, place, sizes, tiles, segments, out, end)


@kernel
def qvector_csr(
    x: Any, weights: Any, sizes: Any, tiles: Any, segments: Any, out: Any, end: Any,
    first_task: int, last_task: int,
) -> None:  # fmt: skip
    """Of one column: weights (values i32, column of each, row_ptr in whole vectors)."""
    values, places, row_ptr = weights
    scratch = _scratch()
    for task in range(first_task, last_task):
        place = _place_of_four(task, sizes)
        image, _, first, last = place
        own = x[image * sizes[0] :]
        for m in range(first, last):
            tile = no_sums(1)
            for p in range(row_ptr[m], row_ptr[m + 1], LANES):
                tile = add_gathered_dots(tile, values, p, own, places)
            scratch[(m - first) * _STRIDE] = sum_of(tile)
        _finish(scratch, place, sizes, tiles, segments, out, end)
