"""Attention of floats and of packed bytes: softmax(Q K' + mask) V of each head.

A lane is a query, so that the softmax of each runs in its own lane; BLOCK queries of a head are
taken at a time. Rows of scratch are BLOCK elements: the queries, a row for each feature; the scores
and what becomes of them, one for each key; the result, one for each feature of the values.

A mask is f32 and flat; `mask_steps` says how far its images, heads, queries and keys are apart: 0
where it is broadcast.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sparsert.kernels.activations import exponentiate
from sparsert.kernels.compiling import inner, kernel, outline
from sparsert.kernels.lanes import (
    LANES,
    add_product,
    aligned,
    item,
    larger,
    load,
    load_first,
    multiply_add,
    over,
    plus,
    store,
    store_first,
    times,
    zeros,
)
from sparsert.kernels.planes import turn
from sparsert.kernels.qlanes import (
    add_dot,
    add_dot_of,
    floats,
    ints,
    no_sums,
    plus_int,
    to_floats,
    with_byte,
)
from sparsert.kernels.qrows import quantised

BLOCK = 4 * LANES
# Vectors of a tile of four rows: what registers can hold.
_WIDE = 2 if LANES == 8 else 4
_TILE = _WIDE * LANES
_ZERO, _ONE, _INFINITY = np.float32(0), np.float32(1), np.float32(np.inf)
_ONES = np.int32(0x01010101)
_SIGNS = np.uint32(0x80808080)
_SIGN = 128


@inner
def _add_mask(scores: Any, keys: int, wide: int, mask: Any, at: int, steps: Any) -> None:
    """Adds the mask, which begins at mask[at], to the scores of `wide` queries."""
    for t in range(keys):
        row, from_ = t * BLOCK, at + t * steps[3]
        if steps[2]:
            for i in range(wide):
                scores[row + i] += mask[from_ + i * steps[2]]
            continue
        for j in range(row, row + wide, LANES):
            store(plus(load(zeros(1), scores, j), mask[from_]), scores, j)


@outline
def _soften(scores: Any, keys: int, wide: int, factors: Any) -> None:
    """Makes the scores of `wide` queries exp(score - the largest of the query's).

    factors: 1 / their sum; infinite where all scores are -infinity, NaN where one is.
    """
    for j in range(0, wide, LANES):
        most = plus(zeros(1), -_INFINITY)
        for t in range(keys):
            most = larger(most, scores, t * BLOCK + j)
        store(most, factors, j)
        for i in range(j, j + LANES):
            factors[i] = _ZERO if factors[i] == -_INFINITY else -factors[i]
        shift = load(zeros(1), factors, j)
        for t in range(keys):
            store(plus(load(zeros(1), scores, t * BLOCK + j), shift), scores, t * BLOCK + j)
    for t in range(keys):
        exponentiate(scores[t * BLOCK : t * BLOCK + wide])
    for j in range(0, wide, LANES):
        total = zeros(1)
        for t in range(keys):
            total = plus(total, load(zeros(1), scores, t * BLOCK + j))
        store(over(plus(zeros(1), _ONE), total), factors, j)


@inner
def _four(first: int, count: int) -> tuple[int, int, int, int]:
    """Four successive rows from `first` on; beyond the last one it is that."""
    last = count - 1
    return first, min(first + 1, last), min(first + 2, last), min(first + 3, last)


@inner
def _products(
    w: Any, w_at: int, w_row: int, w_step: int, rows: Any, x: Any, first: int, count: int,
    y: Any, to: int,
) -> None:  # fmt: skip
    """Writes a tile of four rows to y: sums of weights times rows of x, from column `first` on.

    Weight i of `count` of row r is w[w_at + r * w_row + i * w_step].
    """
    a_at, b_at = w_at + rows[0] * w_row, w_at + rows[1] * w_row
    c_at, d_at = w_at + rows[2] * w_row, w_at + rows[3] * w_row
    zero = zeros(_WIDE)
    a, b, c, d = zero, zero, zero, zero
    for i in range(count):
        at, p = first + i * BLOCK, i * w_step
        a = add_product(a, item(w, a_at + p), x, at)
        b = add_product(b, item(w, b_at + p), x, at)
        c = add_product(c, item(w, c_at + p), x, at)
        d = add_product(d, item(w, d_at + p), x, at)
    store(a, y, to)
    store(b, y, to + BLOCK)
    store(c, y, to + 2 * BLOCK)
    store(d, y, to + 3 * BLOCK)


@kernel
def attention(
    q: Any, k: Any, v: Any, mask: Any, y: Any, sizes: Any, steps: Any, mask_steps: Any,
    alpha: float, begin: int, end: int,
) -> None:  # fmt: skip
    """Writes softmax(alpha Q K' + mask) V; a task is BLOCK queries of a head.

    Args:
        q: f32, flat, as k, v and y are.
        k: the keys.
        v: the values.
        mask: anything where there is none.
        y: the result.
        sizes: heads; heads of k and v; queries; keys; features of a head; those of its values;
            whether there is a mask; whether the result is 0 where it would be NaN.
        steps: i64 [4, 3]: how far images, heads and tokens are apart in q, k, v and y.
        mask_steps: of the mask.
        alpha: what scores are multiplied with.
        begin: the first task.
        end: behind the last one.
    """
    heads, kv_heads, queries, keys, size, value_size, has_mask, zero_nan = sizes
    blocks = (queries + BLOCK - 1) // BLOCK
    columns, scores = aligned(size * BLOCK), aligned((keys + 3) * BLOCK)
    result, factors = aligned((value_size + 3) * BLOCK), aligned(BLOCK)
    for task in range(begin, end):
        rest, first = task // blocks, task % blocks * BLOCK
        image, head = rest // heads, rest % heads
        wide, shared = min(BLOCK, queries - first), head * kv_heads // heads
        at = image * steps[0, 0] + head * steps[0, 1] + first * steps[0, 2]
        turn(q, at, steps[0, 2], wide, size, columns, 0, BLOCK)
        at = image * steps[1, 0] + shared * steps[1, 1]
        for t in range(0, keys, 4):
            rows = _four(t, keys)
            for j in range(0, wide, _TILE):
                to = t * BLOCK + j
                _products(k, at, steps[1, 2], 1, rows, columns, j, size, scores, to)
        for j in range(0, keys * BLOCK, LANES):
            store(times(load(zeros(1), scores, j), alpha), scores, j)
        if has_mask:
            at = image * mask_steps[0] + head * mask_steps[1] + first * mask_steps[2]
            _add_mask(scores, keys, wide, mask, at, mask_steps)
        _soften(scores, keys, wide, factors)
        at = image * steps[2, 0] + shared * steps[2, 1]
        for f in range(0, value_size, 4):
            rows = _four(f, value_size)
            for j in range(0, wide, _TILE):
                to = f * BLOCK + j
                _products(v, at, 1, steps[2, 2], rows, scores, j, keys, result, to)
        for f in range(value_size):
            for j in range(0, wide, LANES):
                share = multiply_add(zeros(1), result, f * BLOCK + j, factors, j)
                store(share, result, f * BLOCK + j)
        if zero_nan:
            for i in range(wide):
                if not factors[i] < _INFINITY:
                    for f in range(value_size):
                        result[f * BLOCK + i] = _ZERO
        at = image * steps[3, 0] + head * steps[3, 1] + first * steps[3, 2]
        turn(result, 0, BLOCK, value_size, wide, y, at, steps[3, 2])


@inner
def _levels(steps: Any, row: int) -> tuple[float, float, float]:
    """Zero point, low and high of a step, as quantised() takes them."""
    return steps[row, 3], steps[row, 4], steps[row, 5]


@inner
def _rounded(tile: Any, steps: Any, row: int) -> Any:
    """Returns what the bytes of a step stand for; a step with scale 0 rounds nothing."""
    if steps[row, 1] == _ZERO:
        return tile
    levels = quantised(times(tile, steps[row, 2]), _levels(steps, row))
    return times(plus(levels, -steps[row, 3]), steps[row, 1])


@inner
def _dots(
    w: Any, w_row: int, w_step: int, rows: Any, row_starts: Any, x: Any, starts: Any, first: int,
    count: int, y: Any,
) -> None:  # fmt: skip
    """As _products(), of signed groups of four bytes with unsigned ones; y has integers.

    Sums begin with the starts of their row and of their column.
    """
    start = ints(load(zeros(_WIDE), starts, first))
    a, b = plus_int(start, row_starts[rows[0]]), plus_int(start, row_starts[rows[1]])
    c, d = plus_int(start, row_starts[rows[2]]), plus_int(start, row_starts[rows[3]])
    a_at, b_at, c_at, d_at = rows[0] * w_row, rows[1] * w_row, rows[2] * w_row, rows[3] * w_row
    for i in range(count):
        at, p = first + i * BLOCK, i * w_step
        a = add_dot(a, item(w, a_at + p), x, at)
        b = add_dot(b, item(w, b_at + p), x, at)
        c = add_dot(c, item(w, c_at + p), x, at)
        d = add_dot(d, item(w, d_at + p), x, at)
    store(floats(a), y, first)
    store(floats(b), y, first + BLOCK)
    store(floats(c), y, first + 2 * BLOCK)
    store(floats(d), y, first + 3 * BLOCK)


@inner
def _start_columns(x: Any, count: int, wide: int, centre: int, starts: Any) -> None:
    """What the sums of each column begin with: -centre for each unit of its bytes."""
    for j in range(0, wide, LANES):
        tile = no_sums(1)
        for i in range(count):
            tile = add_dot(tile, _ONES, x, i * BLOCK + j)
        store(floats(tile), starts, j)
        for i in range(j, j + LANES):
            starts[i] = starts[i] * -centre


@inner
def _turn_keys(k: Any, at: int, planes: int, zeros_: Any, groups: Any, starts: Any) -> None:
    """Signed groups [planes, keys], and what the sums of each key begin with."""
    keys = starts.size - LANES
    for i in range(planes * keys):
        groups[i] = np.int32(k[at + i] ^ _SIGNS)
    for t in range(0, keys, LANES):
        tile = no_sums(1)
        for p in range(planes):
            part = load_first(zeros(1), k, at + p * keys + t, keys - t)
            tile = add_dot_of(tile, _ONES, ints(part))
        store(floats(tile), starts, t)
    for t in range(keys):
        starts[t] = zeros_[0] * (4 * planes * zeros_[1] - starts[t])


@inner
def _turn_values(
    v: Any, at: int, keys: int, zero: int, share_zero: int, signed: Any, starts: Any
) -> None:
    """Signed bytes [features, keys in fours], and what the sums of each feature begin with."""
    wide = signed.size // starts.size
    for f in range(starts.size):
        from_, to, total = 4 * (at + f // 4 * keys) + f % 4, f * wide, 0
        for t in range(keys):
            byte = v[from_ + 4 * t]
            total += byte
            signed[to + t] = byte ^ np.uint8(_SIGN)
        for t in range(keys, wide):
            signed[to + t] = 0
        starts[f] = share_zero * (keys * zero - total)


@inner
def _score(
    k_groups: Any, k_starts: Any, columns: Any, starts: Any, sums: Any, steps: Any,
    planes: int, wide: int, scores: Any,
) -> None:  # fmt: skip
    """The scores of all keys, as they are before the mask."""
    keys = k_starts.size - LANES
    for t in range(0, keys, 4):
        rows = _four(t, keys)
        for j in range(0, wide, _TILE):
            _dots(k_groups, 1, keys, rows, k_starts, columns, starts, j, planes, sums)
        for r in range(min(4, keys - t)):
            for j in range(0, wide, LANES):
                part = times(to_floats(ints(load(zeros(1), sums, r * BLOCK + j))), steps[0, 0])
                part = times(_rounded(part, steps, 0), steps[1, 0])
                store(_rounded(part, steps, 1), scores, (t + r) * BLOCK + j)


@inner
def _share(scores: Any, keys: int, wide: int, factors: Any, steps: Any, shares: Any) -> None:
    """Bytes of the softmax, four keys to a group; keys that do not exist have 0."""
    for i in range(wide):
        factors[i] = factors[i] if factors[i] < _INFINITY else _ZERO
    for t in range(0, keys, 4):
        for j in range(0, wide, LANES):
            packed = no_sums(1)
            for r in range(min(4, keys - t)):
                share = multiply_add(zeros(1), scores, (t + r) * BLOCK + j, factors, j)
                levels = quantised(times(share, steps[3, 2]), _levels(steps, 3))
                packed = with_byte(packed, levels, r)
            store(floats(packed), shares, t // 4 * BLOCK + j)


@kernel
def qattention(
    q: Any, k: Any, v: Any, mask: Any, y: Any, sizes: Any, zeros_: Any, steps: Any,
    mask_steps: Any, begin: int, end: int,
) -> None:  # fmt: skip
    """Attention of bytes, rounded after each of its steps; a task is a head of an image.

    Args:
        q: u32 [images, heads, planes, queries], flat.
        k: u32 [images, heads, planes, keys], flat.
        v: the bytes of u32 [images, heads, planes of the values, keys], flat.
        mask: anything where there is none.
        y: f32, flat: [images, heads, planes of the values, queries] with the bits of u32, or the
            floats of each feature.
        sizes: heads; planes of a head; those of its values; queries; keys; whether there is a mask;
            whether y is of bytes.
        zeros_: zero points of q, k and v.
        steps: f32 [5, 6]: factor, scale, 1 / scale, zero point, low, high of: the scores; the
            scores times a factor; with the mask; their softmax; the result.
        mask_steps: of the mask.
        begin: the first task.
        end: behind the last one.
    """
    heads, planes, value_planes, queries, keys, has_mask, is_bytes = sizes
    groups = (keys + 3) // 4
    k_groups, k_starts = np.empty(planes * keys, np.int32), np.empty(keys + LANES, np.int32)
    v_groups = np.empty(4 * value_planes * groups, np.int32)
    v_starts, starts = np.empty(4 * value_planes, np.int32), np.empty(BLOCK, np.int32)
    columns, scores = aligned(planes * BLOCK), aligned((keys + 3) * BLOCK)
    shares, sums, factors = aligned(groups * BLOCK), aligned(4 * BLOCK), aligned(BLOCK)
    share_zero = int(steps[3, 3])
    for task in range(begin, end):
        _turn_keys(k, task * planes * keys, planes, zeros_, k_groups, k_starts)
        at = task * value_planes * keys
        _turn_values(v, at, keys, zeros_[2], share_zero, v_groups.view(np.uint8), v_starts)
        for first in range(0, queries, BLOCK):
            wide = min(BLOCK, queries - first)
            for p in range(planes):
                at = (task * planes + p) * queries + first
                for j in range(0, BLOCK, LANES):
                    store(load_first(zeros(1), q, at + j, wide - j), columns, p * BLOCK + j)
            _start_columns(columns, planes, BLOCK, zeros_[1] - _SIGN, starts)
            _score(k_groups, k_starts, columns, starts, sums, steps, planes, wide, scores)
            if has_mask:
                at = task // heads * mask_steps[0] + task % heads * mask_steps[1]
                at += first * mask_steps[2]
                _add_mask(scores, keys, wide, mask, at, mask_steps)
            for t in range(keys):
                for j in range(t * BLOCK, t * BLOCK + wide, LANES):
                    store(_rounded(load(zeros(1), scores, j), steps, 2), scores, j)
            _soften(scores, keys, wide, factors)
            _share(scores, keys, wide, factors, steps, shares)
            _start_columns(shares, groups, BLOCK, zeros_[2] - _SIGN, starts)
            for f in range(0, 4 * value_planes, 4):
                rows = _four(f, 4 * value_planes)
                for j in range(0, wide, _TILE):
                    _dots(v_groups, groups, 1, rows, v_starts, shares, starts, j, groups, sums)
                for j in range(0, wide, LANES):
                    packed = no_sums(1)
                    for r in range(4):
                        z = times(to_floats(ints(load(zeros(1), sums, r * BLOCK + j))), steps[4, 0])
                        if is_bytes:
                            levels = quantised(times(z, steps[4, 2]), _levels(steps, 4))
                            packed = with_byte(packed, levels, r)
                        else:
                            at = (4 * task * value_planes + f + r) * queries + first + j
                            store_first(z, y, at, wide - j)
                    if is_bytes:
                        at = (task * value_planes + f // 4) * queries + first + j
                        store_first(floats(packed), y, at, wide - j)
