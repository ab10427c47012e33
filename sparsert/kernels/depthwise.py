"""Convolutions whose rows of weights each read one channel."""

from __future__ import annotations

from typing import Any

import numpy as np

from sparsert.kernels.activations import activate
from sparsert.kernels.compiling import inner, kernel
from sparsert.kernels.lanes import (
    LANES,
    add_product,
    aligned,
    between,
    item,
    load_first,
    plus,
    store_first,
    zeros,
)
from sparsert.kernels.planes import split_plane

_WIDEST = 4  # vectors of a tile
_ZERO = np.float32(0)


@inner
def _stretch(
    zero: Any, plane: Any, at: int, weights: Any, m: int, to: int, count: int, out: Any, act: Any
) -> None:
    """Writes `count` outputs of row m, side by side from y[to] on."""
    values, shifts, row_ptr = weights
    bias, residual, has_residual, y = out
    tile = plus(zero, bias[m])
    for p in range(np.int64(row_ptr[m]), np.int64(row_ptr[m + 1])):
        tile = add_product(tile, item(values, p), plane, at + item(shifts, p))
    if has_residual:
        tile = plus(tile, load_first(tile, residual, to, count))
    store_first(between(tile, act[1], act[2]) if act[0] == 0 else tile, y, to, count)


@kernel
def depthwise_csr(
    x: Any, weights: Any, geometry: Any, out: Any, act: Any, begin: int, end: int
) -> None:
    """Writes act(weights * x + bias + residual); a task is a plane of x.

    Args:
        x: f32, flat: planes of all images.
        weights: values; of each, where its tap begins in a plane as split_plane() leaves it;
            row_ptr. Each channel has as many rows.
        geometry: window and phases as of split_plane(); the first column of each line of outputs;
            outputs of a line; channels; elements of a plane with its phases.
        out: bias, f32 [rows]; residual, like y, or anything where there is none; whether there is
            one; y, f32, flat.
        act: number of the activation, and its bounds or parameters.
        begin: the first task.
        end: behind the last one.
    """
    window, phases, lines, line, channels, size = geometry
    rows = out[0].size // channels
    plane = aligned(size + (_WIDEST + 1) * LANES)
    outputs = lines.size * line
    for task in range(begin, end):
        split_plane(x, task, plane, 0, window, phases, _ZERO)
        for r in range(rows):
            m, row = task % channels * rows + r, (task * rows + r) * outputs
            for i in range(lines.size):
                to, done = row + i * line, 0
                while done < line:
                    at, left = lines[i] + done, line - done
                    if left > 2 * LANES:
                        _stretch(zeros(4), plane, at, weights, m, to + done, left, out, act)
                        done += 4 * LANES
                    elif left > LANES:
                        _stretch(zeros(2), plane, at, weights, m, to + done, left, out, act)
                        done += 2 * LANES
                    else:
                        _stretch(zeros(1), plane, at, weights, m, to + done, left, out, act)
                        done += LANES
            if act[0]:
                activate(out[3], row, row + outputs, act[0], act[1], act[2])
