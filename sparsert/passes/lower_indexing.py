"""Turns Hardmax, Compress, MaxUnpool and TensorScatter into gathers, scatters and the like.

A Gather of everything in its order, as as_strided() of PyTorch is exported, becomes a Reshape.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from sparsert.passes.chain import Chain
from sparsert.passes.graph_tools import (
    attribute,
    constant_array,
    dim_at,
    input_at,
    is_f32,
    is_op,
    known_dims,
    nodes_of,
    rank_of,
)

_I64 = ir.TensorType(ir.DataType.INT64)


def run(model: ir.Model) -> None:
    """Lowers nodes on inputs of known rank, in place."""
    for node in nodes_of(model.graph):
        x, rank = input_at(node, 0), rank_of(input_at(node, 0))
        if x is None or rank is None or node.domain != "":
            continue
        chain = Chain(node, model.graph)
        if is_op(node, "Hardmax"):
            done = is_f32(x) and rank > 0 and _hardmax(node, x, rank, chain)
        elif is_op(node, "Compress"):
            done = _compress(node, x, rank, chain)
        elif is_op(node, "MaxUnpool"):
            done = is_f32(x) and _unpool(node, x, rank, chain)
        elif is_op(node, "TensorScatter"):
            done = rank > 1 and _scatter(node, x, rank, chain)
        elif is_op(node, "Gather"):
            done = _gather(node, x, rank, chain)
        else:
            continue
        if done:
            chain.replace()


def _size(x: ir.Value, axis: int, chain: Chain) -> ir.Value:
    """Returns one dimension as an int64 vector of one element."""
    known = dim_at(x, axis)
    if known is not None:
        return chain.constant("size", np.array([known]))
    size = chain.add("Shape", [x], ir.Shape([1]), start=axis, end=axis + 1)
    size.type = _I64
    return size


def _hardmax(node: ir.Node, x: ir.Value, rank: int, chain: Chain) -> bool:
    """1 where the first of the largest elements along an axis stands, 0 elsewhere."""
    axis = attribute(node, "axis", -1) % rank
    shape = None if x.shape is None else [dim for i, dim in enumerate(x.shape) if i != axis]
    depth = chain.add(
        "Reshape",
        [_size(x, axis, chain), chain.constant("scalar", np.zeros(0, np.int64))],
        ir.Shape([]),
    )
    most = chain.add(
        "ArgMax", [x], None if shape is None else ir.Shape(shape), axis=axis, keepdims=0
    )
    most.type = _I64
    values = chain.constant("values", np.array([0, 1], np.float32))
    one_hot = chain.add("OneHot", [most, depth, values], axis=axis)
    one_hot.type = x.type
    return True


def _compress(node: ir.Node, x: ir.Value, rank: int, chain: Chain) -> bool:
    """Elements whose condition is a constant are known by their indices."""
    condition = constant_array(input_at(node, 1))
    if condition is None:
        return False
    axis = attribute(node, "axis")
    if axis is None:
        x = chain.add("Reshape", [x, chain.constant("flat", np.array([-1]))])
    indices = np.flatnonzero(condition)
    chain.add("Gather", [x, chain.constant("indices", indices)], axis=axis or 0)
    return True


def _unpool(node: ir.Node, x: ir.Value, rank: int, chain: Chain) -> bool:
    """Elements go to their places in a tensor of zeros."""
    places = input_at(node, 1)
    kernel = attribute(node, "kernel_shape")
    axes = rank - 2
    sizes = known_dims(x, range(2, rank))
    if places is None or sizes is None or kernel is None:
        return False
    strides = attribute(node, "strides", (1,) * axes)
    pads = attribute(node, "pads", (0,) * (2 * axes))
    spatial = [
        (sizes[i] - 1) * strides[i] - pads[i] - pads[axes + i] + kernel[i] for i in range(axes)
    ]
    dims = known_dims(x, (0, 1))
    rest = chain.constant("spatial", np.array(spatial))
    if dims is not None:
        shape = chain.constant("shape", np.array([*dims, *spatial]))
    else:
        planes = chain.add("Shape", [x], ir.Shape([2]), start=0, end=2)
        planes.type = _I64
        shape = chain.add("Concat", [planes, rest], ir.Shape([rank]), axis=0)
    zeros = chain.add("Expand", [chain.constant("zero", np.zeros(1, np.float32)), shape])
    flat = chain.constant("flat", np.array([-1]))
    y = chain.add(
        "ScatterElements",
        [
            chain.add("Reshape", [zeros, flat]),
            chain.add("Reshape", [places, flat]),
            chain.add("Reshape", [x, flat]),
        ],
        axis=0,
    )
    y = chain.add("Reshape", [y, shape])
    wanted = input_at(node, 2)
    if wanted is not None:
        # Indices count in the smaller tensor, which lies in a corner of the other.
        more = chain.add("Sub", [wanted, shape], ir.Shape([rank]))
        none = chain.constant("none", np.zeros(rank, np.int64))
        chain.add("Pad", [y, chain.add("Concat", [none, more], ir.Shape([2 * rank]), axis=0)])
    return True


def _gather(node: ir.Node, x: ir.Value, rank: int, chain: Chain) -> bool:
    """An axis whose elements are all taken, one after the other, may get other dimensions."""
    indices, dims = constant_array(input_at(node, 1)), known_dims(x, range(rank))
    if indices is None or dims is None or rank == 0 or 0 in dims:
        return False
    axis = attribute(node, "axis", 0) % rank
    if indices.size != dims[axis] or not np.array_equal(indices.ravel(), np.arange(dims[axis])):
        return False
    shape = [*dims[:axis], *indices.shape, *dims[axis + 1 :]]
    chain.add("Reshape", [x, chain.constant("shape", np.array(shape, np.int64))])
    return True


def _scatter(node: ir.Node, x: ir.Value, rank: int, chain: Chain) -> bool:
    """The rows of an update go to successive places that the run says."""
    update, first = input_at(node, 1), input_at(node, 2)
    axis = attribute(node, "axis", -2) % rank
    if update is None or axis == 0:
        return False
    count = _size(update, axis, chain)
    zero, one = chain.constant("zero", np.array(0)), chain.constant("one", np.array(1))
    scalar = chain.constant("scalar", np.zeros(0, np.int64))
    steps = chain.add("Range", [zero, chain.add("Reshape", [count, scalar], ir.Shape([])), one])
    steps = chain.add(
        "Reshape", [steps, chain.constant("steps", np.array([-1] + [1] * (rank - 1 - axis)))]
    )
    if first is not None:
        start = chain.constant("start", np.array([-1] + [1] * (rank - 1)))
        steps = chain.add("Add", [chain.add("Reshape", [first, start]), steps])
    if attribute(node, "mode", "linear") == "circular":
        steps = chain.add("Mod", [steps, _size(x, axis, chain)])
    shape = chain.add("Shape", [update], ir.Shape([rank]))
    shape.type = _I64
    places = chain.add("Expand", [steps, shape], update.shape)
    chain.add("ScatterElements", [x, places, update], axis=axis)
    return True
