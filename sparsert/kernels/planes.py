"""Copies of planes with their padding, and pools over them."""

from __future__ import annotations

from typing import Any

import numpy as np

from sparsert.kernels.activations import activate
from sparsert.kernels.compiling import inner, kernel, outline
from sparsert.kernels.lanes import (
    LANES,
    add_product,
    aligned,
    evens,
    larger,
    load,
    load_first,
    load_rows,
    load_within,
    plus,
    store,
    store_first,
    store_rows,
    turned,
    zeros,
)


@inner
def _fill(y: Any, begin: int, end: int, value: float) -> None:
    while begin < end:
        store_first(plus(zeros(1), value), y, begin, end - begin)
        begin += LANES


@inner
def copy(x: Any, source: int, y: Any, target: int, count: int) -> None:
    """Writes x[source:] to y[target:], `count` elements of it."""
    i = 0
    while i + LANES <= count:
        store(load(zeros(1), x, source + i), y, target + i)
        i += LANES
    if i < count:
        store_first(load_first(zeros(1), x, source + i, count - i), y, target + i, count - i)


@inner
def _copy_line(
    x: Any,
    source: int,
    step: int,
    y: Any,
    target: int,
    count: int,
    low: int,
    high: int,
    fill: float,
) -> None:
    """Writes x[source + q * step] for q from low to high, and `fill` for the others of `count`."""
    if step > 2:
        for q in range(count):
            y[target + q] = x[source + q * step] if q >= low and q < high else fill
        return
    for q in range(0, count, LANES):
        first, last = low - q, high - q
        if step == 2:
            pairs = load_within(zeros(2), x, source + 2 * q, 2 * first, 2 * last - 1, fill)
            tile = evens(pairs)
        elif first <= 0 and last >= LANES:
            tile = load(zeros(1), x, source + q)
        else:
            tile = load_within(zeros(1), x, source + q, first, last, fill)
        if count - q >= LANES:
            store(tile, y, target + q)
        else:
            store_first(tile, y, target + q, count - q)


@outline
def split_plane(
    x: Any, plane: int, y: Any, target: int, window: Any, phases: Any, fill: float
) -> None:
    """Copies one plane, as split_planes() does, to y[target:]."""
    depth, height, width = window[0]
    step_d, step_h, step_w = window[1]
    before_d, before_h, before_w = window[2]
    out_d, out_h, out_w = window[3]
    for p in range(phases.shape[0]):
        first = phases[p, 2] - before_w  # of the row, at q = 0
        low = min(max(0, -(first // step_w)), out_w)
        high = max(min(out_w, (width - 1 - first) // step_w + 1), low)
        for qd in range(out_d):
            d = qd * step_d + phases[p, 0] - before_d
            for qh in range(out_h):
                h = qh * step_h + phases[p, 1] - before_h
                if d < 0 or d >= depth or h < 0 or h >= height:
                    _fill(y, target, target + out_w, fill)
                    target += out_w
                    continue
                source = ((plane * depth + d) * height + h) * width + first
                _copy_line(x, source, step_w, y, target, out_w, low, high, fill)
                target += out_w


@kernel
def split_planes(
    x: Any, y: Any, window: Any, phases: Any, fill: float, begin: int, end: int
) -> None:
    """Copies planes x[begin:end] of D x H x W, padded, each as its phases.

    Args:
        x: f32, flat.
        y: f32, flat: for each plane and phase a plane of the three sizes that `window` ends with.
        window: i64 [4, 3]: sizes of x, strides, padding before, sizes of y.
        phases: i64 [phases, 3]: element q of a phase is element q * stride + phase of the plane.
        fill: the padding.
        begin: the first plane.
        end: behind the last one.
    """
    for plane in range(begin, end):
        target = plane * phases.shape[0] * window[3, 0] * window[3, 1] * window[3, 2]
        split_plane(x, plane, y, target, window, phases, fill)


@outline
def turn(x: Any, at: int, step: int, rows: int, columns: int, y: Any, to: int, y_step: int) -> None:
    """Writes y[to + c * y_step + r] = x[at + r * step + c] for all r of rows and c of columns."""
    high, wide = rows - rows % LANES, columns - columns % LANES
    for c in range(0, wide, LANES):
        for r in range(0, high, LANES):
            square = turned(load_rows(zeros(LANES), x, at + r * step + c, step))
            store_rows(square, y, to + c * y_step + r, y_step, LANES)
    for r in range(rows):
        for c in range(wide if r < high else 0, columns):
            y[to + c * y_step + r] = x[at + r * step + c]


@kernel
def to_columns(x: Any, y: Any, rows: int, columns: int, begin: int, end: int) -> None:
    """Writes y [columns, rows] = x [rows, columns] transposed; for bands of LANES columns."""
    for band in range(begin, end):
        c = band * LANES
        turn(x, c, columns, rows, min(LANES, columns - c), y, c * rows, rows)


@kernel
def pool_planes(
    x: Any, y: Any, taps: Any, shares: Any, sizes: Any, segments: Any, begin: int, end: int
) -> None:
    """Max, or mean, over the taps of each window.

    Args:
        x: f32, flat, as split_planes() leaves it.
        y: f32, flat.
        taps: i32: where each tap's plane begins.
        shares: f32 [columns]: what a sum is multiplied with; empty for the max.
        sizes: of one plane of x with its phases; of one plane of y; columns.
        segments: i32 [segments, 3]: first column, place in y, columns.
        begin: the first plane.
        end: behind the last one.
    """
    is_max = shares.shape[0] == 0
    columns = sizes[2]
    scratch = aligned(columns + LANES)
    for plane in range(begin, end):
        base = plane * sizes[0]
        for j in range(0, columns, LANES):
            if is_max:
                tile = load(zeros(1), x, base + taps[0] + j)
                for t in range(1, taps.shape[0]):
                    tile = larger(tile, x, base + taps[t] + j)
            else:
                tile = zeros(1)
                for t in range(taps.shape[0]):
                    tile = add_product(tile, np.float32(1), x, base + taps[t] + j)
            store(tile, scratch, j)
        if not is_max:
            for j in range(columns):
                scratch[j] *= shares[j]
        for s in range(segments.shape[0]):
            at = plane * sizes[1] + segments[s, 1]
            copy(scratch, segments[s, 0], y, at, segments[s, 2])


@kernel
def mean_planes(x: Any, y: Any, size: int, begin: int, end: int) -> None:
    """Writes the mean of each plane of `size` elements."""
    for plane in range(begin, end):
        sums = zeros(1)
        base = plane * size
        i = 0
        while i + LANES <= size:
            sums = plus(sums, load(zeros(1), x, base + i))
            i += LANES
        # In f64 from here: the means of large planes keep their last digits.
        lanes = np.empty(LANES, np.float32)
        store(sums, lanes, 0)
        whole = np.float64(0)
        for lane in lanes:
            whole += lane
        for k in range(i, size):
            whole += x[base + k]
        y[plane] = np.float32(whole / size)


@kernel
def scale_planes(
    x: Any, y: Any, scale: Any, shift: Any, size: int, act: Any, begin: int, end: int
) -> None:
    """Writes the function `act` of x * scale + shift of each plane; both are per channel."""
    fn, alpha, beta = act
    for plane in range(begin, end):
        c = plane % scale.shape[0]
        a, b = scale[c], shift[c]
        for i in range(plane * size, (plane + 1) * size):
            y[i] = x[i] * a + b
        activate(y, plane * size, (plane + 1) * size, fn, alpha, beta)
