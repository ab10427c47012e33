"""Convolutions and products of matrices: each nonzero weight adds a shifted row of the inputs.

Of a weight matrix [rows, columns], column k stands for the plane of inputs that begins `shift[k]`
behind the first one: a channel and a tap of a window, or a feature. Output row m is the sum of its
weights times those planes, so one loop serves every format, window, stride and group.

The outputs of one image are cut into tiles of up to WIDEST vectors. A task is a tile of up to
HEIGHT rows of one image: it is summed in registers, goes to scratch, and from there through the
epilogue to its places in y. Arguments that the kernels share:

    x         f32, flat
    sizes     of one image of x; of one image of y; of one row of y; tasks' tiles, tasks' heights;
              rows; whether there is a residual; whether y is [columns, rows] instead of rows
    tiles     i32 [tiles, 4]: first column, vectors, first and last segment
    segments  i32 [segments, 3]: first column in the tile, place in a row of y, columns
    bias      f32 [rows]
    residual  f32 like y; anything where sizes say that there is none
    act       number of the activation; its bounds or parameters
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sparsert.kernels.activations import activate
from sparsert.kernels.compiling import inner, kernel
from sparsert.kernels.lanes import (
    LANES,
    add_product,
    between,
    load,
    load_first,
    load_rows,
    lowest_bit,
    plus,
    store,
    store_first,
    store_rows,
    turned,
    zeros,
)

# Vectors of the widest tile of one row, and of one of four rows: what registers can hold.
WIDEST = 8
WIDEST_OF_FOUR = 3 if LANES == 8 else 6
HEIGHT = 16
_STRIDE = WIDEST * LANES  # of the rows of scratch


@inner
def _to_planes(
    scratch: Any, place: Any, sizes: Any, tiles: Any, segments: Any, out: Any, act: Any
) -> None:
    image, t, first, last = place
    bias, residual, y = out
    fn, low, high = act
    for m in range(first, last):
        row = image * sizes[1] + m * sizes[2]
        source = (m - first) * _STRIDE
        for s in range(tiles[t, 2], tiles[t, 3]):
            begin, at, count = source + segments[s, 0], row + segments[s, 1], segments[s, 2]
            for i in range(0, count, LANES):
                part = plus(load(zeros(1), scratch, begin + i), bias[m])
                if count - i >= LANES:
                    if sizes[6]:
                        part = plus(part, load(zeros(1), residual, at + i))
                    if fn == 0:
                        part = between(part, low, high)
                    store(part, y, at + i)
                else:
                    if sizes[6]:
                        part = plus(part, load_first(zeros(1), residual, at + i, count - i))
                    if fn == 0:
                        part = between(part, low, high)
                    store_first(part, y, at + i, count - i)
            if fn:
                activate(y, at, at + count, fn, low, high)


@inner
def _to_columns(
    scratch: Any, place: Any, sizes: Any, tiles: Any, segments: Any, out: Any, act: Any
) -> None:
    image, t, first, last = place
    bias, residual, y = out
    fn, low, high = act
    s = tiles[t, 2]
    rows, count = sizes[5], segments[s, 2]
    for m in range(first, last, LANES):
        wide = min(LANES, last - m)
        for c in range(0, count, LANES):
            square = load_rows(zeros(LANES), scratch, (m - first) * _STRIDE + c, _STRIDE)
            store_rows(turned(square), scratch, HEIGHT * _STRIDE, LANES, LANES)
            for i in range(min(LANES, count - c)):
                at = image * sizes[1] + (segments[s, 1] + c + i) * rows + m
                part = load(zeros(1), scratch, HEIGHT * _STRIDE + i * LANES)
                part = plus(part, load_first(zeros(1), bias, m, wide))
                if sizes[6]:
                    part = plus(part, load_first(zeros(1), residual, at, wide))
                if fn == 0:
                    part = between(part, low, high)
                store_first(part, y, at, wide)
                if fn:
                    activate(y, at, at + wide, fn, low, high)


@inner
def _finish(
    scratch: Any, place: Any, sizes: Any, tiles: Any, segments: Any, out: Any, act: Any
) -> None:
    if sizes[7]:
        _to_columns(scratch, place, sizes, tiles, segments, out, act)
    else:
        _to_planes(scratch, place, sizes, tiles, segments, out, act)


@inner
def _place(task: int, sizes: Any) -> tuple[int, int, int, int]:
    """The image, tile, first and last row of a task."""
    heights = sizes[4]
    rest, height = task // heights, task % heights
    first = height * HEIGHT
    return rest // sizes[3], rest % sizes[3], first, min(first + HEIGHT, sizes[5])


@inner
def _scratch() -> np.ndarray:
    return np.empty(HEIGHT * _STRIDE + LANES * LANES, np.float32)


@inner
def _csr_tile(
    zero: Any, x: Any, start: int, first: int, last: int, weights: Any, scratch: Any
) -> None:
    values, shifts, row_ptr = weights
    for m in range(first, last):
        tile = zero
        for p in range(row_ptr[m], row_ptr[m + 1]):
            tile = add_product(tile, values[p], x, start + shifts[p])
        store(tile, scratch, (m - first) * _STRIDE)


@kernel
def rows_csr(
    x: Any,
    weights: Any,
    sizes: Any,
    tiles: Any,
    segments: Any,
    out: Any,
    act: Any,
    begin: int,
    end: int,
) -> None:
    """Weights (values, shift of each, row_ptr)."""
    scratch = _scratch()
    for task in range(begin, end):
        place = _place(task, sizes)
        image, t, first, last = place
        start = image * sizes[0] + tiles[t, 0]
        wide = tiles[t, 1]
        if wide == 8:
            _csr_tile(zeros(8), x, start, first, last, weights, scratch)
        elif wide == 7:
            _csr_tile(zeros(7), x, start, first, last, weights, scratch)
        elif wide == 6:
            _csr_tile(zeros(6), x, start, first, last, weights, scratch)
        elif wide == 5:
            _csr_tile(zeros(5), x, start, first, last, weights, scratch)
        elif wide == 4:
            _csr_tile(zeros(4), x, start, first, last, weights, scratch)
        elif wide == 3:
            _csr_tile(zeros(3), x, start, first, last, weights, scratch)
        elif wide == 2:
            _csr_tile(zeros(2), x, start, first, last, weights, scratch)
        else:
            _csr_tile(zeros(1), x, start, first, last, weights, scratch)
        _finish(scratch, place, sizes, tiles, segments, out, act)


@inner
def _bits_tile(
    zero: Any, x: Any, start: int, first: int, last: int, weights: Any, scratch: Any
) -> None:
    values, words, row_ptr, shift = weights
    for m in range(first, last):
        tile = zero
        p = row_ptr[m]
        for w in range(words.shape[1]):
            bits = words[m, w]
            while bits:
                k = w * 64 + lowest_bit(bits)
                tile = add_product(tile, values[p], x, start + shift[k])
                bits &= bits - np.uint64(1)
                p += 1
        store(tile, scratch, (m - first) * _STRIDE)


@kernel
def rows_bits(
    x: Any,
    weights: Any,
    sizes: Any,
    tiles: Any,
    segments: Any,
    out: Any,
    act: Any,
    begin: int,
    end: int,
) -> None:
    """Weights (values, u64 [rows, words] with a bit for each, row_ptr, shift of each column)."""
    scratch = _scratch()
    for task in range(begin, end):
        place = _place(task, sizes)
        image, t, first, last = place
        start = image * sizes[0] + tiles[t, 0]
        wide = tiles[t, 1]
        if wide > 6:
            _bits_tile(zeros(8), x, start, first, last, weights, scratch)
        elif wide > 4:
            _bits_tile(zeros(6), x, start, first, last, weights, scratch)
        elif wide > 2:
            _bits_tile(zeros(4), x, start, first, last, weights, scratch)
        elif wide == 2:
            _bits_tile(zeros(2), x, start, first, last, weights, scratch)
        else:
            _bits_tile(zeros(1), x, start, first, last, weights, scratch)
        _finish(scratch, place, sizes, tiles, segments, out, act)


@inner
def _wide_tile(
    zero: Any, x: Any, start: int, first: int, last: int, weights: Any, scratch: Any
) -> None:
    values, columns, row_ptr, shift, size = weights
    for m in range(first, last):
        tile = zero
        for b in range(row_ptr[m], row_ptr[m + 1]):
            k = columns[b] * size
            for i in range(size):
                tile = add_product(tile, values[b * size + i], x, start + shift[k + i])
        store(tile, scratch, (m - first) * _STRIDE)


@kernel
def rows_wide(
    x: Any,
    weights: Any,
    sizes: Any,
    tiles: Any,
    segments: Any,
    out: Any,
    act: Any,
    begin: int,
    end: int,
) -> None:
    """Weights in blocks of 1 x n: (values, column of blocks, row_ptr, shift of each column, n)."""
    scratch = _scratch()
    for task in range(begin, end):
        place = _place(task, sizes)
        image, t, first, last = place
        start = image * sizes[0] + tiles[t, 0]
        wide = tiles[t, 1]
        if wide > 6:
            _wide_tile(zeros(8), x, start, first, last, weights, scratch)
        elif wide > 4:
            _wide_tile(zeros(6), x, start, first, last, weights, scratch)
        elif wide > 2:
            _wide_tile(zeros(4), x, start, first, last, weights, scratch)
        elif wide == 2:
            _wide_tile(zeros(2), x, start, first, last, weights, scratch)
        else:
            _wide_tile(zeros(1), x, start, first, last, weights, scratch)
        _finish(scratch, place, sizes, tiles, segments, out, act)


@inner
def _four_tile(
    zero: Any, x: Any, start: int, first: int, last: int, weights: Any, scratch: Any
) -> None:
    values, shifts, row_ptr = weights
    for m in range(first, last, 4):
        a, b, c, d = zero, zero, zero, zero
        for p in range(row_ptr[m // 4], row_ptr[m // 4 + 1]):
            at = start + shifts[p]
            a = add_product(a, values[4 * p], x, at)
            b = add_product(b, values[4 * p + 1], x, at)
            c = add_product(c, values[4 * p + 2], x, at)
            d = add_product(d, values[4 * p + 3], x, at)
        row = (m - first) * _STRIDE
        store(a, scratch, row)
        store(b, scratch, row + _STRIDE)
        store(c, scratch, row + 2 * _STRIDE)
        store(d, scratch, row + 3 * _STRIDE)


@kernel
def rows_four(
    x: Any,
    weights: Any,
    sizes: Any,
    tiles: Any,
    segments: Any,
    out: Any,
    act: Any,
    begin: int,
    end: int,
) -> None:
    """Weights in blocks of 4 x 1: (values, shift of each block, row_ptr); dense if all are there."""
    scratch = _scratch()
    for task in range(begin, end):
        place = _place(task, sizes)
        image, t, first, last = place
        start = image * sizes[0] + tiles[t, 0]
        wide = tiles[t, 1]
        if wide == 6:
            _four_tile(zeros(6), x, start, first, last, weights, scratch)
        elif wide == 5:
            _four_tile(zeros(5), x, start, first, last, weights, scratch)
        elif wide == 4:
            _four_tile(zeros(4), x, start, first, last, weights, scratch)
        elif wide == 3:
            _four_tile(zeros(3), x, start, first, last, weights, scratch)
        elif wide == 2:
            _four_tile(zeros(2), x, start, first, last, weights, scratch)
        else:
            _four_tile(zeros(1), x, start, first, last, weights, scratch)
        _finish(scratch, place, sizes, tiles, segments, out, act)
