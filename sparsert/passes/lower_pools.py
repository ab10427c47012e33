"""Turns LpPool, GlobalLpPool, pools over three axes and of bytes into pools that are native."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from sparsert.passes.chain import Chain
from sparsert.passes.graph_tools import (
    attribute,
    input_at,
    is_f32,
    is_op,
    known_dims,
    make_node,
    nodes_of,
    rank_of,
    take_over,
)

_BYTES = (ir.DataType.UINT8, ir.DataType.INT8)


def run(model: ir.Model) -> None:
    """Lowers f32 nodes, and MaxPool of bytes, on inputs of known rank, in place."""
    for name in ("LpPool", "GlobalLpPool", "MaxPool", "AveragePool"):
        # What LpPool becomes may be a pool over three axes.
        for node in nodes_of(model.graph):
            x, rank = input_at(node, 0), rank_of(input_at(node, 0))
            if not is_op(node, name) or x is None or rank is None:
                continue
            if name == "MaxPool" and x.dtype in _BYTES:
                _pool_bytes(node, x)
                x = input_at(node, 0)
            if x is None or not is_f32(x):
                continue
            chain = Chain(node, model.graph)
            if name == "LpPool":
                done = _lp_pool(node, x, chain)
            elif name == "GlobalLpPool":
                done = _global_lp_pool(node, x, rank, chain)
            else:
                done = rank == 5 and _three_axes(node, x, chain)
            if done:
                chain.replace()


def _pool_bytes(node: ir.Node, x: ir.Value) -> None:
    """Pools as f32, which holds all of these numbers."""
    graph, y = node.graph, node.outputs[0]
    assert isinstance(graph, ir.Graph)
    dtype, f32 = x.dtype, ir.TensorType(ir.DataType.FLOAT)
    assert dtype is not None
    wide = make_node("Cast", [x], {"to": int(ir.DataType.FLOAT)}, name=f"{node.name}_wide")
    wide.outputs[0].type, wide.outputs[0].shape = f32, x.shape
    back = make_node("Cast", [y], {"to": int(dtype)}, name=f"{node.name}_back", like=y)
    graph.insert_before(node, wide)
    graph.insert_after(node, back)
    node.replace_input_with(0, wide.outputs[0])
    take_over(y, back.outputs[0])
    back.replace_input_with(0, y)
    y.type = f32


def _power(x: ir.Value, p: int, chain: Chain) -> ir.Value:
    """Returns |x| ** p."""
    if p == 2:
        return chain.add("Mul", [x, x], x.shape)
    y = chain.add("Abs", [x], x.shape)
    if p == 1:
        return y
    return chain.add("Pow", [y, chain.constant("p", np.array(p, dtype=np.float32))], x.shape)


def _root(y: ir.Value, p: int, chain: Chain) -> None:
    if p == 2:
        chain.add("Sqrt", [y])
    elif p != 1:
        chain.add("Pow", [y, chain.constant("root", np.array(1 / p, dtype=np.float32))])


def _lp_pool(node: ir.Node, x: ir.Value, chain: Chain) -> bool:
    if attribute(node, "ceil_mode", 0):
        return False  # the last window is cut off, and its mean with it
    p, kernel = attribute(node, "p", 2), attribute(node, "kernel_shape")
    given = {
        name: attribute(node, name)
        for name in ("kernel_shape", "strides", "pads", "dilations", "auto_pad")
        if name in node.attributes
    }
    mean = chain.add(
        "AveragePool",
        [_power(x, p, chain)],
        node.outputs[0].shape,
        count_include_pad=1,
        **given,
    )
    count = chain.constant("count", np.array(math.prod(kernel), dtype=np.float32))
    _root(chain.add("Mul", [mean, count]), p, chain)
    return True


def _global_lp_pool(node: ir.Node, x: ir.Value, rank: int, chain: Chain) -> bool:
    p = attribute(node, "p", 2)
    axes = chain.constant("axes", np.array(range(2, rank)))
    if p in (1, 2):
        chain.add(f"ReduceL{p}", [x, axes])
    else:
        _root(chain.add("ReduceSum", [_power(x, p, chain), axes]), p, chain)
    return True


def _three_axes(node: ir.Node, x: ir.Value, chain: Chain) -> bool:
    """Pools over height and width, then over depth: maxima and means allow it."""
    sizes, result = known_dims(x, (2, 3, 4)), known_dims(node.outputs[0], (2, 3, 4))
    if sizes is None or result is None:
        return False
    depth, height, width = sizes
    if len(node.outputs) > 1 and (node.outputs[1].uses() or node.outputs[1].is_graph_output()):
        return False
    kernel = attribute(node, "kernel_shape")
    strides = attribute(node, "strides", (1, 1, 1))
    dilations = attribute(node, "dilations", (1, 1, 1))
    pads = attribute(node, "pads", (0,) * 6)
    common = {
        name: attribute(node, name)
        for name in ("auto_pad", "ceil_mode", "count_include_pad")
        if name in node.attributes
    }
    known = known_dims(x, (1,))  # -1 says nothing of an empty batch
    channels, slices = (known[0], known[0] * depth) if known else (-1, -1)
    own_pads = attribute(node, "auto_pad", "NOTSET") == "NOTSET"
    flat = chain.add("Reshape", [x, chain.constant("planes", np.array([0, slices, height, width]))])
    flat = chain.add(
        node.op_type,
        [flat],
        kernel_shape=kernel[1:],
        strides=strides[1:],
        dilations=dilations[1:],
        pads=(*pads[1:3], *pads[4:]) if own_pads else None,
        **common,
    )
    columns = chain.constant("columns", np.array([0, channels, depth, result[1] * result[2]]))
    y = chain.add(
        node.op_type,
        [chain.add("Reshape", [flat, columns])],
        kernel_shape=[kernel[0], 1],
        strides=[strides[0], 1],
        dilations=[dilations[0], 1],
        pads=(pads[0], 0, pads[3], 0) if own_pads else None,
        **common,
    )
    chain.add("Reshape", [y, chain.constant("shape", np.array([0, channels, *result]))])
    return True
