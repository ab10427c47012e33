"""Recognises layer normalisation that exporters spell out with reductions."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from sparsert.passes.graph_tools import (
    attribute,
    constant,
    constant_array,
    constant_scalar,
    has_single_use,
    input_at,
    is_f32,
    is_op,
    make_node,
    nodes_of,
    rank_of,
    replace_node,
)


def run(model: ir.Model) -> None:
    """Replaces (x - mean) / sqrt(variance + epsilon) * scale + bias along the last axis, in place.

    Also without the mean (RMSNormalization), and with the orders of factors and the ways to square
    and to take the root that exporters use.
    """
    for node in nodes_of(model.graph):
        if node.graph is not model.graph or not node.outputs or not is_f32(node.outputs[0]):
            continue
        norm = _norm_of(node.outputs[0])
        if norm is None:
            continue
        scaled = _vector_user(norm.y, "Mul", norm.x)
        if scaled is None:
            continue
        last, scale = scaled
        inputs = [norm.x, scale]
        if norm.centred:
            shifted = _vector_user(last.outputs[0], "Add", norm.x)
            if shifted is not None and _size(shifted[1]) == _size(scale):
                last = shifted[0]
                inputs.append(shifted[1])
        new = make_node(
            "LayerNormalization" if norm.centred else "RMSNormalization",
            inputs,
            {"axis": -1, "epsilon": norm.epsilon},
            name=last.name,
            like=last.outputs[0],
        )
        replace_node(last, new)
    common.RemoveUnusedNodesPass()(model)


@dataclasses.dataclass(frozen=True)
class _Norm:
    x: ir.Value
    y: ir.Value
    centred: bool
    epsilon: float


def _norm_of(y: ir.Value) -> _Norm | None:
    """Returns what `y` normalises, if y = d / sqrt(mean(d^2) + epsilon)."""
    node = y.producer()
    if node is None or len(node.inputs) != 2:
        return None
    if is_op(node, "Div"):
        pairs = [(node.inputs[0], _root_of(node.inputs[1]))]
    elif is_op(node, "Mul"):
        a, b = node.inputs
        pairs = [(a, _inverse_root_of(b)), (b, _inverse_root_of(a))]
    else:
        return None
    for d, radicand in pairs:
        if d is None or radicand is None:
            continue
        shifted = _plus_constant(radicand)
        square = _mean_of(shifted[0]) if shifted is not None else None
        if square is None or shifted is None or shifted[1] < 0:
            continue
        source = _centred_from(d)
        root = _square_root(square)
        if root is None:
            continue
        same = root is d or (source is not None and _centred_from(root) is source)
        if not same:
            continue
        if source is not None:
            return _Norm(source, y, True, shifted[1])
        return _Norm(d, y, False, shifted[1])
    return None


def _node(value: ir.Value | None, *op_types: str) -> ir.Node | None:
    node = value.producer() if value is not None else None
    return node if node is not None and is_op(node, *op_types) else None


def _root_of(value: ir.Value | None) -> ir.Value | None:
    """Returns v if value = sqrt(v)."""
    node = _node(value, "Sqrt", "Pow")
    if node is None or (node.op_type == "Pow" and constant_scalar(input_at(node, 1)) != 0.5):
        return None
    return node.inputs[0]


def _inverse_root_of(value: ir.Value | None) -> ir.Value | None:
    """Returns v if value = 1 / sqrt(v)."""
    node = _node(value, "Reciprocal", "Div", "Pow")
    if node is None:
        return None
    if node.op_type == "Pow":
        return node.inputs[0] if constant_scalar(input_at(node, 1)) == -0.5 else None
    if node.op_type == "Reciprocal":
        return _root_of(node.inputs[0])
    return _root_of(node.inputs[1]) if constant_scalar(node.inputs[0]) == 1 else None


def _plus_constant(value: ir.Value) -> tuple[ir.Value, float] | None:
    """Returns (v, c) if value = v + c."""
    node = _node(value, "Add")
    if node is None:
        return None
    for v, other in (node.inputs, node.inputs[::-1]):
        scalar = constant_scalar(other)
        if scalar is not None and v is not None:
            return v, scalar
    return None


def _mean_of(value: ir.Value | None) -> ir.Value | None:
    """Returns v if value is the mean of v along its last axis, which is kept."""
    node = _node(value, "ReduceMean")
    if node is None or not attribute(node, "keepdims", 1):
        return None
    source = node.inputs[0]
    axes, rank = constant_array(input_at(node, 1)), rank_of(source)
    if axes is None or axes.size != 1:
        return None
    axis = int(axes.reshape(()))
    return source if axis == -1 or (rank is not None and axis == rank - 1) else None


def _square_root(value: ir.Value) -> ir.Value | None:
    """Returns v if value = v * v."""
    node = _node(value, "Mul", "Pow")
    if node is None:
        return None
    if node.op_type == "Mul":
        return node.inputs[0] if node.inputs[0] is node.inputs[1] else None
    return node.inputs[0] if constant_scalar(input_at(node, 1)) == 2 else None


def _centred_from(value: ir.Value) -> ir.Value | None:
    """Returns x if value = x - mean(x)."""
    node = _node(value, "Sub")
    if node is None or _mean_of(node.inputs[1]) is not node.inputs[0]:
        return None
    return node.inputs[0]


def _vector_user(value: ir.Value, op_type: str, x: ir.Value) -> tuple[ir.Node, ir.Value] | None:
    """Returns the only user of `value`, an operator with a vector as long as x's last axis."""
    if not has_single_use(value):
        return None
    user = next(iter(value.uses())).node
    if not is_op(user, op_type):
        return None
    other = user.inputs[1] if user.inputs[0] is value else user.inputs[0]
    size = _size(other)
    width = x.shape[-1] if x.shape is not None and len(x.shape) else None
    if size is None or other is None:
        return None
    if size != width and not (size > 1 and not isinstance(width, int)):
        return None
    return user, other


def _size(value: ir.Value | None) -> int | None:
    """Returns the length of a constant f32 vector."""
    tensor = constant(value)
    if tensor is None or len(tensor.shape) != 1 or tensor.dtype != ir.DataType.FLOAT:
        return None
    return int(np.prod(tensor.shape.numpy()))
