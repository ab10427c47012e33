"""Turns a ScatterND that assigns to a box of its data, x[..., a:b, c:d] = u, into slices around u.

PyTorch exports such an assignment with indices that are a Concat, along the last axis, of ranges
that are expanded to the shape of u.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from sparsert.passes.chain import Chain
from sparsert.passes.graph_tools import (
    attribute,
    constant_array,
    input_at,
    is_op,
    known_dims,
    nodes_of,
    rank_of,
)

# Of the indices that are looked at: more are not worth the time.
_MAX_ELEMS = 1 << 20
Box = list[tuple[int, int]]


def run(model: ir.Model) -> None:
    """Lowers nodes whose indices are known and whose data has a known shape, in place."""
    for node in nodes_of(model.graph):
        if is_op(node, "ScatterND") and attribute(node, "reduction", "none") == "none":
            _lower(node, model.graph)


def _lower(node: ir.Node, graph: ir.Graph) -> None:
    x, update = input_at(node, 0), input_at(node, 2)
    dims = known_dims(x, range(rank_of(x) or 0))
    columns = _columns(input_at(node, 1))
    if x is None or update is None or not dims or columns is None or 0 in dims:
        return
    box = _box(columns)
    if box is None or any(stop > dim for (_, stop), dim in zip(box, dims, strict=False)):
        return
    chain = Chain(node, graph)
    shape = [stop - start for start, stop in box] + dims[len(box) :]
    y = chain.add("Reshape", [update, chain.constant("shape", np.array(shape))], ir.Shape(shape))
    for axis in reversed(range(len(box))):
        start, stop = box[axis]
        before = _slice(chain, x, [*box[:axis], (0, start)])
        after = _slice(chain, x, [*box[:axis], (stop, dims[axis])])
        parts = [part for part in (before, y, after) if part is not None]
        if len(parts) > 1:
            y = chain.add("Concat", parts, axis=axis)
    chain.replace()


def _slice(chain: Chain, x: ir.Value, box: Box) -> ir.Value | None:
    """Cuts a box out of the first axes; None if the last of them has no extent."""
    if box[-1][0] == box[-1][1]:
        return None
    starts, stops = np.array(box).T
    axes = chain.constant("axes", np.arange(len(box)))
    return chain.add("Slice", [x, *map(chain.constant, ("starts", "stops"), (starts, stops)), axes])


def _columns(indices: ir.Value | None) -> list[np.ndarray] | None:
    """Returns an array per indexed axis, each of the updates' grid; None if one is not known."""
    node = None if indices is None else indices.producer()
    if indices is None or node is None or not is_op(node, "Concat"):
        values = [indices]
    elif attribute(node, "axis") in (-1, (rank_of(indices) or 0) - 1):
        values = list(node.inputs)
    else:
        return None
    arrays = [_known(value) for value in values]
    columns = []
    for array in arrays:
        if array is None or array.ndim == 0:
            return None
        columns += [array[..., index] for index in range(array.shape[-1])]
    return columns


def _known(value: ir.Value | None) -> np.ndarray | None:
    """Returns a constant, expanded as the graph says; that takes no memory."""
    node = None if value is None else value.producer()
    if node is None or not is_op(node, "Expand", "Unsqueeze"):
        return constant_array(value, _MAX_ELEMS)
    array, how = _known(input_at(node, 0)), constant_array(input_at(node, 1))
    if array is None or how is None:
        return None
    sizes = tuple(int(size) for size in how)
    if node.op_type == "Unsqueeze":
        return np.expand_dims(array, sizes)
    try:
        return np.broadcast_to(array, np.broadcast_shapes(array.shape, sizes))
    except ValueError:
        return None


def _box(columns: Sequence[np.ndarray]) -> Box | None:
    """Returns the range of each indexed axis if the grid runs through a box, last axis fastest."""
    box: Box = []
    free = 0  # the first axis of the grid that no column has run along
    grid = columns[0].shape if columns else ()
    for column in map(_unexpanded, columns):
        axis = next((i for i in range(free, len(grid)) if _varies(column, i)), None)
        size = 1
        if axis is not None:
            if any(dim > 1 for dim in grid[free:axis]):
                return None
            size, free = grid[axis], axis + 1
        start = int(column.flat[0]) if column.size else -1
        run = np.arange(start, start + size)
        if axis is not None:
            run = run.reshape([-1] + [1] * (len(grid) - 1 - axis))
        if start < 0 or not np.array_equal(column, np.broadcast_to(run, column.shape)):
            return None
        box.append((start, start + size))
    return None if not columns or any(dim > 1 for dim in grid[free:]) else box


def _unexpanded(column: np.ndarray) -> np.ndarray:
    """Takes one element of each axis that was expanded: it takes no steps in memory."""
    steps = zip(column.shape, column.strides, strict=True)
    return column[tuple(slice(0, 1 if step == 0 else size) for size, step in steps)]


def _varies(column: np.ndarray, axis: int) -> bool:
    return column.size > 0 and bool(np.ptp(column, axis=axis).any())
