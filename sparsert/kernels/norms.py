"""Normalisation of rows of floats."""

from __future__ import annotations

from typing import Any

import numpy as np

from sparsert.kernels.compiling import inner, kernel
from sparsert.kernels.lanes import (
    LANES,
    aligned,
    load,
    multiply_add,
    plus,
    store,
    times,
    total,
    zeros,
)


@inner
def _less(x: Any, at: int, size: int, mean: float, y: Any) -> float:
    """Writes x[at:] - mean to y, `size` elements of it, and returns their sum."""
    sums = zeros(1)
    whole = size - size % LANES
    for i in range(0, whole, LANES):
        tile = plus(load(zeros(1), x, at + i), -mean)
        store(tile, y, i)
        sums = plus(sums, tile)
    found = total(sums)
    for i in range(whole, size):
        y[i] = x[at + i] - mean
        found += y[i]
    return found


@kernel
def norm_rows(
    x: Any, y: Any, scale: Any, bias: Any, centred: int, epsilon: float, begin: int, end: int
) -> None:
    """Writes (x - mean) / sqrt(variance + epsilon) * scale + bias of each row.

    Args:
        x: f32 [rows, elements], flat.
        y: like x.
        scale: f32 [elements].
        bias: f32 [elements].
        centred: 0: the mean counts as 0.
        epsilon: keeps rows of equal elements finite.
        begin: the first row.
        end: behind the last one.
    """
    size = scale.size
    row = aligned(size + LANES)
    for i in range(size, size + LANES):
        row[i] = 0
    for r in range(begin, end):
        at = r * size
        if centred:
            # Where elements are large, their mean is not exact, but distances to one of them are.
            mean = _less(x, at, size, x[at], row) / np.float32(size)
            _less(row, 0, size, mean, row)
        else:
            _less(x, at, size, np.float32(0), row)
        squares = zeros(1)
        for i in range(0, size, LANES):
            squares = multiply_add(squares, row, i, row, i)
        variance = total(squares) / np.float32(size)
        factor = np.float32(1) / np.sqrt(variance + np.float32(epsilon))
        for i in range(0, size, LANES):
            store(times(load(zeros(1), row, i), factor), row, i)
            if size - i >= LANES:
                tile = load(zeros(1), bias, i)
                store(multiply_add(tile, row, i, scale, i), y, at + i)
                continue
            for k in range(i, size):
                y[at + k] = row[k] * scale[k] + bias[k]
        for i in range(size, size + LANES):
            row[i] = 0
