"""Convolutions and products of matrices: each nonzero weight adds a shifted row of the inputs.

Of a weight matrix [rows, columns], column k stands for the plane of inputs that begins `shift[k]`
behind the first one: a channel and a tap of a window, or a feature. Output row m is the sum of its
weights times those planes, so one loop serves every format, window, stride and group.

The outputs of one image are cut into tiles of up to WIDEST vectors. A task is a tile of some rows
of one image: it is summed in registers and goes through the epilogue to its places in y, by way of
scratch if these are not side by side. Where the inputs of a tile are too many for L1, csr and
blocks of 4x1 take them slab by slab, all rows of a task for each.

Every kernel takes x (f32, flat), its weights, a job, and the first and last task. A job is:

    sizes     of one image of x; of one image of y; of one row of y; tiles of an image; bands of
              rows; rows; whether there is a residual; whether y is [columns, rows] instead of
              rows; rows of a band
    tiles     i32 [tiles, 4]: first column, vectors, first and last segment
    segments  i32 [segments, 3]: first column in the tile, place in a row of y, columns
    out       bias, f32 [rows]; residual, f32 like y, or anything where there is none; y
    act       number of the activation, and its bounds or parameters
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sparsert.kernels.activations import activate
from sparsert.kernels.compiling import inner, kernel, maker
from sparsert.kernels.lanes import (
    LANES,
    add_product,
    aligned,
    between,
    item,
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
# Rows of a task: few, whose sums stay in L1, or so many that each slab is used often.
HEIGHT, SLAB_HEIGHT = 16, 256


@inner
def _place(task: int, job: Any) -> tuple[int, int, int, int]:
    """The image, tile, first and last row of a task."""
    sizes = job[0]
    rest, band = task // sizes[4], task % sizes[4]
    first = band * sizes[8]
    return rest // sizes[3], rest % sizes[3], first, min(first + sizes[8], sizes[5])


@inner
def _start(place: Any, job: Any) -> int:
    """Where the inputs of a task's tile begin."""
    return place[0] * job[0][0] + job[1][place[1], 0]


@maker
def _scratch(job: Any) -> np.ndarray:
    """Room for the rows of a task, four more, and a square of vectors to turn."""
    return aligned((job[0][8] + 4) * WIDEST * LANES + LANES * LANES)


@inner
def _is_direct(place: Any, job: Any) -> bool:
    """Whether a tile's outputs lie side by side, and need no function but bounds."""
    sizes, tiles, segments, _, act = job
    t = place[1]
    if tiles[t, 3] - tiles[t, 2] != 1 or sizes[7] or act[0]:
        return False
    return segments[tiles[t, 2], 0] == 0


@inner
def _write(tile: Any, m: int, place: Any, job: Any) -> None:
    """Takes a tile of row m through the epilogue to y."""
    sizes, tiles, segments, out, act = job
    bias, residual, y = out
    s = tiles[place[1], 2]
    count = segments[s, 2]
    at = place[0] * sizes[1] + m * sizes[2] + segments[s, 1]
    tile = plus(tile, bias[m])
    if count == tiles[place[1], 1] * LANES:
        if sizes[6]:
            tile = plus(tile, load(tile, residual, at))
        store(between(tile, act[1], act[2]), y, at)
    else:
        if sizes[6]:
            tile = plus(tile, load_first(tile, residual, at, count))
        store_first(between(tile, act[1], act[2]), y, at, count)


@inner
def _to_planes(scratch: Any, place: Any, job: Any) -> None:
    sizes, tiles, segments, out, act = job
    image, t, first, last = place
    bias, residual, y = out
    fn, low, high = act
    stride = tiles[t, 1] * LANES
    for m in range(first, last):
        row = image * sizes[1] + m * sizes[2]
        source = (m - first) * stride
        for s in range(tiles[t, 2], tiles[t, 3]):
            begin, at, count = source + segments[s, 0], row + segments[s, 1], segments[s, 2]
            for i in range(0, count, LANES):
                part = plus(load(zeros(1), scratch, begin + i), bias[m])
                if count - i >= LANES:
                    if sizes[6]:
                        part = plus(part, load(part, residual, at + i))
                    store(between(part, low, high) if fn == 0 else part, y, at + i)
                else:
                    if sizes[6]:
                        part = plus(part, load_first(part, residual, at + i, count - i))
                    part = between(part, low, high) if fn == 0 else part
                    store_first(part, y, at + i, count - i)
            if fn:
                activate(y, at, at + count, fn, low, high)


@inner
def _to_columns(scratch: Any, place: Any, job: Any) -> None:
    sizes, tiles, segments, out, act = job
    image, t, first, last = place
    bias, residual, y = out
    fn, low, high = act
    s = tiles[t, 2]
    stride, square_at = tiles[t, 1] * LANES, scratch.size - LANES * LANES
    rows, count = sizes[5], segments[s, 2]
    for m in range(first, last, LANES):
        wide = min(LANES, last - m)
        for c in range(0, count, LANES):
            square = load_rows(zeros(LANES), scratch, (m - first) * stride + c, stride)
            store_rows(turned(square), scratch, square_at, LANES, LANES)
            for i in range(min(LANES, count - c)):
                at = image * sizes[1] + (segments[s, 1] + c + i) * rows + m
                part = load(zeros(1), scratch, square_at + i * LANES)
                part = plus(part, load_first(zeros(1), bias, m, wide))
                if sizes[6]:
                    part = plus(part, load_first(zeros(1), residual, at, wide))
                if fn == 0:
                    part = between(part, low, high)
                store_first(part, y, at, wide)
                if fn:
                    activate(y, at, at + wide, fn, low, high)


@inner
def _finish(scratch: Any, place: Any, job: Any) -> None:
    """Takes the sums of a task through the epilogue to y, unless they are there already."""
    if job[0][7]:
        _to_columns(scratch, place, job)
    elif not _is_direct(place, job):
        _to_planes(scratch, place, job)


@inner
def _of_width(
    compute: Any, vectors: int, x: Any, place: Any, weights: Any, scratch: Any, job: Any
) -> None:
    """Runs compute() of up to six vectors with zeros of as many."""
    if vectors == 6:
        compute(zeros(6), x, place, weights, scratch, job)
    elif vectors == 5:
        compute(zeros(5), x, place, weights, scratch, job)
    elif vectors == 4:
        compute(zeros(4), x, place, weights, scratch, job)
    elif vectors == 3:
        compute(zeros(3), x, place, weights, scratch, job)
    elif vectors == 2:
        compute(zeros(2), x, place, weights, scratch, job)
    else:
        compute(zeros(1), x, place, weights, scratch, job)


@inner
def _run_tasks(
    compute: Any, x: Any, weights: Any, scratch: Any, job: Any, begin: int, end: int
) -> None:
    """Runs tasks by compute(), with as many vectors or one more: so it is compiled less often."""
    for task in range(begin, end):
        place = _place(task, job)
        vectors = job[1][place[1], 1]
        if vectors > 6:
            compute(zeros(8), x, place, weights, scratch, job)
        elif vectors > 4:
            compute(zeros(6), x, place, weights, scratch, job)
        elif vectors > 2:
            compute(zeros(4), x, place, weights, scratch, job)
        elif vectors == 2:
            compute(zeros(2), x, place, weights, scratch, job)
        else:
            compute(zeros(1), x, place, weights, scratch, job)
        _finish(scratch, place, job)


@inner
def _csr_tile(zero: Any, x: Any, place: Any, weights: Any, scratch: Any, job: Any) -> None:
    values, shifts, slabs = weights
    _, t, first, last = place
    start, stride, direct = _start(place, job), job[1][t, 1] * LANES, _is_direct(place, job)
    count = slabs.shape[0] - 1
    for s in range(count):
        for m in range(first, last):
            row = (m - first) * stride
            tile = load(zero, scratch, row) if s else zero
            for p in range(np.int64(slabs[s, m]), np.int64(slabs[s + 1, m])):
                tile = add_product(tile, item(values, p), x, start + item(shifts, p))
            if direct and s == count - 1:
                _write(tile, m, place, job)
            else:
                store(tile, scratch, row)


@kernel
def rows_csr(x: Any, weights: Any, job: Any, begin: int, end: int) -> None:
    """Weights (values, shift of each, i32 [slabs + 1, rows]: where each slab of a row begins)."""
    scratch = _scratch(job)
    for task in range(begin, end):
        place = _place(task, job)
        vectors = job[1][place[1], 1]
        if vectors == 8:
            _csr_tile(zeros(8), x, place, weights, scratch, job)
        elif vectors == 7:
            _csr_tile(zeros(7), x, place, weights, scratch, job)
        else:
            _of_width(_csr_tile, vectors, x, place, weights, scratch, job)
        _finish(scratch, place, job)


@inner
def _bits_tile(zero: Any, x: Any, place: Any, weights: Any, scratch: Any, job: Any) -> None:
    values, words, row_ptr, shift = weights
    _, t, first, last = place
    start, stride, direct = _start(place, job), job[1][t, 1] * LANES, _is_direct(place, job)
    for m in range(first, last):
        tile = zero
        p = np.int64(row_ptr[m])
        for w in range(words.shape[1]):
            bits = words[m, w]
            while bits:
                k = w * 64 + lowest_bit(bits)
                tile = add_product(tile, item(values, p), x, start + item(shift, k))
                bits &= bits - np.uint64(1)
                p += 1
        if direct:
            _write(tile, m, place, job)
        else:
            store(tile, scratch, (m - first) * stride)


@kernel
def rows_bits(x: Any, weights: Any, job: Any, begin: int, end: int) -> None:
    """Weights (values, u64 [rows, words] with a bit for each, row_ptr, shift of each column)."""
    _run_tasks(_bits_tile, x, weights, _scratch(job), job, begin, end)


@inner
def _wide_tile(zero: Any, x: Any, place: Any, weights: Any, scratch: Any, job: Any) -> None:
    values, columns, row_ptr, shift, size = weights
    _, t, first, last = place
    start, stride, direct = _start(place, job), job[1][t, 1] * LANES, _is_direct(place, job)
    for m in range(first, last):
        tile = zero
        for b in range(np.int64(row_ptr[m]), np.int64(row_ptr[m + 1])):
            k = item(columns, b) * size
            for i in range(size):
                tile = add_product(tile, item(values, b * size + i), x, start + item(shift, k + i))
        if direct:
            _write(tile, m, place, job)
        else:
            store(tile, scratch, (m - first) * stride)


@kernel
def rows_wide(x: Any, weights: Any, job: Any, begin: int, end: int) -> None:
    """Weights in blocks of 1 x n: (values, column of blocks, row_ptr, shift of each column, n)."""
    _run_tasks(_wide_tile, x, weights, _scratch(job), job, begin, end)


@inner
def _four_tile(zero: Any, x: Any, place: Any, weights: Any, scratch: Any, job: Any) -> None:
    values, shifts, slabs = weights
    _, t, first, last = place
    start, stride, direct = _start(place, job), job[1][t, 1] * LANES, _is_direct(place, job)
    count = slabs.shape[0] - 1
    for s in range(count):
        for m in range(first, last, 4):
            row = (m - first) * stride
            a, b, c, d = zero, zero, zero, zero
            if s:
                a = load(zero, scratch, row)
                b = load(zero, scratch, row + stride)
                c = load(zero, scratch, row + 2 * stride)
                d = load(zero, scratch, row + 3 * stride)
            for p in range(np.int64(slabs[s, m // 4]), np.int64(slabs[s + 1, m // 4])):
                at = start + item(shifts, p)
                a = add_product(a, item(values, 4 * p), x, at)
                b = add_product(b, item(values, 4 * p + 1), x, at)
                c = add_product(c, item(values, 4 * p + 2), x, at)
                d = add_product(d, item(values, 4 * p + 3), x, at)
            store(a, scratch, row)
            store(b, scratch, row + stride)
            store(c, scratch, row + 2 * stride)
            store(d, scratch, row + 3 * stride)
            if direct and s == count - 1:
                for i in range(m, min(m + 4, last)):
                    _write(load(zero, scratch, (i - first) * stride), i, place, job)


@kernel
def rows_four(x: Any, weights: Any, job: Any, begin: int, end: int) -> None:
    """Weights in blocks of 4 x 1: as rows_csr(), of each block; dense if all blocks are there."""
    scratch = _scratch(job)
    for task in range(begin, end):
        place = _place(task, job)
        _of_width(_four_tile, job[1][place[1], 1], x, place, weights, scratch, job)
        _finish(scratch, place, job)
