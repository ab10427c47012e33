"""Removes operators that hand their input on unchanged."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from sparsert.passes.graph_tools import (
    attribute,
    bypass,
    constant_array,
    constant_scalar,
    dim_at,
    input_at,
    is_op,
    nodes_of,
    rank_of,
    same_shape,
)


def run(model: ir.Model) -> None:
    """Drops inference-time no-ops of the main graph, in place."""
    for node in nodes_of(model.graph):
        _put_constant_last(node)
        if node.inputs and node.inputs[0] is not None and _is_noop(node):
            bypass(node)


def _adds_no_dimension(node: ir.Node) -> bool:
    """Says whether the second operand, of one element, leaves the first one's shape alone."""
    rank, other = rank_of(node.inputs[0]), rank_of(node.inputs[1])
    return other == 0 or (rank is not None and other is not None and other <= rank)


def _put_constant_last(node: ir.Node) -> None:
    """Exchanges the operands of 0 + x and 1 * x."""
    if is_op(node, "Add", "Mul") and constant_scalar(node.inputs[0]) is not None:
        first, second = node.inputs
        node.replace_input_with(0, second)
        node.replace_input_with(1, first)


def _is_noop(node: ir.Node) -> bool:
    x, y = node.inputs[0], node.outputs[0]
    assert x is not None
    if any(output.uses() or output.is_graph_output() for output in node.outputs[1:]):
        return False
    if is_op(node, "Identity"):
        return not x.is_initializer()
    if is_op(node, "Add", "Sub", "Mul", "Div"):
        neutral = 0.0 if node.op_type in ("Add", "Sub") else 1.0
        return constant_scalar(node.inputs[1]) == neutral and _adds_no_dimension(node)
    if is_op(node, "Dropout"):
        mode = input_at(node, 2)
        return mode is None or constant_scalar(mode) == 0
    if is_op(node, "Cast"):
        return x.dtype is not None and int(x.dtype) == attribute(node, "to")
    if is_op(node, "CastLike"):
        like = input_at(node, 1)
        return x.dtype is not None and like is not None and x.dtype == like.dtype
    if is_op(node, "Transpose"):
        perm = attribute(node, "perm")
        return perm is not None and list(perm) == list(range(len(perm)))
    if is_op(node, "Reshape", "Expand", "Flatten", "Squeeze", "Unsqueeze"):
        return same_shape(x, y) and rank_of(x) == rank_of(y)
    if is_op(node, "Pad"):
        pads = constant_array(input_at(node, 1))
        return pads is not None and not np.any(pads)
    if is_op(node, "Concat", "Sum", "Mean", "Min", "Max"):
        return len(node.inputs) == 1
    if is_op(node, "AveragePool", "MaxPool"):
        return (
            set(attribute(node, "kernel_shape", (0,))) == {1}
            and set(attribute(node, "strides", (1,))) == {1}
            and not any(attribute(node, "pads", (0,)))
        )
    if is_op(node, "Resize"):
        scales = constant_array(input_at(node, 2))
        return scales is not None and scales.size > 0 and bool(np.all(scales == 1))
    if is_op(node, "GlobalAveragePool", "GlobalMaxPool"):
        rank = rank_of(x)
        return rank is not None and all(dim_at(x, axis) == 1 for axis in range(2, rank))
    return False
