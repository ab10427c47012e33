"""Products of a matrix and one vector: act(W x + bias + residual)."""

from __future__ import annotations

from typing import Any

import numpy as np

from sparsert.kernels.activations import activate
from sparsert.kernels.compiling import inner, kernel
from sparsert.kernels.lanes import (
    LANES,
    add_fours,
    add_gathered,
    lowest_bit,
    multiply_add,
    store,
    total,
    zeros,
)


@inner
def _finish(y: Any, m: int, value: float, out: Any, act: Any) -> None:
    bias, residual, has_residual = out
    fn, low, high = act
    value += bias[m]
    if has_residual:
        value += residual[m]
    y[m] = value
    activate(y, m, m + 1, fn, low, high)


@kernel
def vector_csr(x: Any, y: Any, weights: Any, out: Any, act: Any, begin: int, end: int) -> None:
    """Weights (values, col_idx, row_ptr)."""
    values, col_idx, row_ptr = weights
    for m in range(begin, end):
        p, last = row_ptr[m], row_ptr[m + 1]
        tile = zeros(2)
        while p + 2 * LANES <= last:
            tile = add_gathered(tile, values, p, x, col_idx)
            p += 2 * LANES
        value = total(tile)
        while p < last:
            value += values[p] * x[col_idx[p]]
            p += 1
        _finish(y, m, value, out, act)


@kernel
def vector_bits(x: Any, y: Any, weights: Any, out: Any, act: Any, begin: int, end: int) -> None:
    """Weights (values, u64 [rows, words] with a bit for each, row_ptr)."""
    values, words, row_ptr = weights
    for m in range(begin, end):
        p = row_ptr[m]
        value = np.float32(0)
        for w in range(words.shape[1]):
            bits = words[m, w]
            while bits:
                value += values[p] * x[w * 64 + lowest_bit(bits)]
                bits &= bits - np.uint64(1)
                p += 1
        _finish(y, m, value, out, act)


@kernel
def vector_wide(x: Any, y: Any, weights: Any, out: Any, act: Any, begin: int, end: int) -> None:
    """Weights in blocks of 1 x n: (values, column of blocks, row_ptr, n); dense if n is a row."""
    values, columns, row_ptr, size = weights
    for m in range(begin, end):
        tile = zeros(2)
        value = np.float32(0)
        for b in range(row_ptr[m], row_ptr[m + 1]):
            k, p, i = columns[b] * size, b * size, 0
            while i + 2 * LANES <= size:
                tile = multiply_add(tile, values, p + i, x, k + i)
                i += 2 * LANES
            while i < size:
                value += values[p + i] * x[k + i]
                i += 1
        _finish(y, m, value + total(tile), out, act)


@kernel
def vector_four(x: Any, y: Any, weights: Any, out: Any, act: Any, begin: int, end: int) -> None:
    """Weights in blocks of 4 x 1 (values, column of each block, row_ptr); for rows of blocks."""
    values, columns, row_ptr = weights
    lanes = np.empty(LANES, np.float32)
    for block in range(begin, end):
        p, last = row_ptr[block], row_ptr[block + 1]
        tile = zeros(1)
        while p + LANES // 4 <= last:
            tile = add_fours(tile, values, 4 * p, x, columns, p)
            p += LANES // 4
        store(tile, lanes, 0)
        for i in range(4, LANES):
            lanes[i % 4] += lanes[i]
        while p < last:
            for i in range(4):
                lanes[i] += values[4 * p + i] * x[columns[p]]
            p += 1
        for i in range(min(4, y.shape[0] - 4 * block)):
            _finish(y, 4 * block + i, lanes[i], out, act)
