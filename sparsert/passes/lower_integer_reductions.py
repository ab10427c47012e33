"""Turns reductions of integers and bool into operators whose kernels take these types."""

from __future__ import annotations

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
from sparsert.passes.native_checks import INTEGERS, known_values

_OPS = ("ReduceSum", "ReduceProd", "ReduceMax", "ReduceMin")


def run(model: ir.Model) -> None:
    """Lowers nodes over constant axes that are not empty, unless a plan knows the result."""
    if not any(is_op(node, *_OPS) for node in model.graph):
        return
    known = known_values(model.graph)
    for node in nodes_of(model.graph):
        x, rank = input_at(node, 0), rank_of(input_at(node, 0))
        if not is_op(node, *_OPS) or x is None or rank is None or node.outputs[0] in known:
            continue
        is_bool = x.dtype == ir.DataType.BOOL and node.op_type in ("ReduceMax", "ReduceMin")
        if x.dtype not in INTEGERS and not is_bool:
            continue
        axes = _axes(node, rank)
        if axes is None or (is_bool and known_dims(x, axes) is None):
            continue
        chain = Chain(node, model.graph)
        y = chain.add("Cast", [x], x.shape, to=int(ir.DataType.UINT8)) if is_bool else x
        for axis in axes:
            y = _reduce(node.op_type, y, axis, chain)
        if not attribute(node, "keepdims", 1) and axes:
            y = chain.add("Squeeze", [y, chain.constant("axes", np.array(axes))])
        if is_bool:
            chain.add("Cast", [y], to=int(ir.DataType.BOOL))
        elif not axes:
            chain.add("Identity", [y])
        chain.replace()


def _axes(node: ir.Node, rank: int) -> list[int] | None:
    axes: list[int] = []
    if input_at(node, 1) is not None:
        array = constant_array(input_at(node, 1))
        if array is None:
            return None
        axes = [int(axis) % rank for axis in array.reshape(-1)]
    if not axes and not attribute(node, "noop_with_empty_axes", 0):
        return list(range(rank))
    return axes


def _reduce(op: str, x: ir.Value, axis: int, chain: Chain) -> ir.Value:
    """Leaves one element along an axis: the last of a running sum, or the first in order."""
    shape = None
    if x.shape is not None:
        shape = ir.Shape([1 if d == axis else dim for d, dim in enumerate(x.shape)])
    if op in ("ReduceMax", "ReduceMin"):
        one = chain.constant("one", np.array([1]))
        largest = int(op == "ReduceMax")
        value, index = chain.add_outputs("TopK", [x, one], 2, axis=axis, largest=largest)
        value.shape = index.shape = shape
        index.type = ir.TensorType(ir.DataType.INT64)
        return value
    running = "CumSum" if op == "ReduceSum" else "CumProd"
    total = chain.add(running, [x, chain.constant("axis", np.array(axis))], x.shape)
    bounds = [np.array([value]) for value in (-1, np.iinfo(np.int64).max, axis)]
    return chain.add("Slice", [total, *(chain.constant("bound", b) for b in bounds)], shape)
