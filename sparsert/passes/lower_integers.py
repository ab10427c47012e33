"""Turns unary operators on integers, and Clip with bounds of the run, into binary operators."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from sparsert.passes.graph_tools import (
    add_initializer,
    constant,
    input_at,
    is_f32,
    make_node,
    nodes_of,
    replace_node,
)
from sparsert.passes.known_values import INTEGERS

_SIGNED = frozenset({ir.DataType.INT8, ir.DataType.INT16, ir.DataType.INT32, ir.DataType.INT64})


def run(model: ir.Model) -> None:
    """Leaves Abs, Neg, Sign, Relu and Clip with constant bounds on floats alone, in place."""
    for node in nodes_of(model.graph):
        value = input_at(node, 0)
        if value is None or node.domain != "":
            continue
        if node.op_type == "Clip":
            _lower_clip(node, value)
        elif node.op_type == "Pow":
            _lower_pow(node, value)
        elif value.dtype in INTEGERS:
            nodes = _nodes(node, value, model.graph)
            if nodes:
                replace_node(node, nodes)


def _nodes(node: ir.Node, x: ir.Value, graph: ir.Graph) -> list[ir.Node]:
    assert x.dtype is not None
    dtype = x.dtype.numpy()

    def number(value: int, what: str) -> ir.Value:
        return add_initializer(graph, f"{node.name}_{what}", np.array(value).astype(dtype))

    def binary(op_type: str, a: ir.Value, b: ir.Value, suffix: str = "") -> ir.Node:
        return make_node(op_type, [a, b], name=f"{node.name}{suffix}", like=node.outputs[0])

    op, signed = node.op_type, x.dtype in _SIGNED
    if op == "BitwiseNot":
        ones = -1 if signed else np.iinfo(dtype).max
        full = add_initializer(graph, f"{node.name}_ones", np.array(ones, dtype))
        return [binary("BitwiseXor", x, full)]
    if op == "Neg":
        return [binary("Sub", number(0, "zero"), x)]
    if op == "Relu":
        return [binary("Max", x, number(0, "zero"))]
    if op == "Abs":
        if not signed:
            return [make_node("Identity", [x], name=node.name, like=node.outputs[0])]
        minus = binary("Sub", number(0, "zero"), x, "_minus")
        return [minus, binary("Max", x, minus.outputs[0])]
    if op == "Sign":
        low = binary("Min", x, number(1, "one"), "_low")
        if not signed:
            return [low]
        return [low, binary("Max", low.outputs[0], number(-1, "minus_one"))]
    return []


def _lower_clip(node: ir.Node, x: ir.Value) -> None:
    low, high = input_at(node, 1), input_at(node, 2)
    bounds = [bound for bound in (low, high) if bound is not None]
    if all(constant(bound) is not None for bound in bounds) and is_f32(x):
        return
    if x.dtype not in INTEGERS and not is_f32(x):
        return
    nodes: list[ir.Node] = []
    for op_type, bound in (("Max", low), ("Min", high)):
        if bound is not None:
            last = nodes[-1].outputs[0] if nodes else x
            name = f"{node.name}_{op_type}"
            nodes.append(make_node(op_type, [last, bound], name=name, like=node.outputs[0]))
    if not nodes:
        nodes.append(make_node("Identity", [x], name=node.name, like=node.outputs[0]))
    replace_node(node, nodes)


def _lower_pow(node: ir.Node, base: ir.Value) -> None:
    """Brings an exponent of another type to that of the base."""
    exponent = input_at(node, 1)
    if exponent is None or not is_f32(base) or exponent.dtype not in INTEGERS:
        return
    cast = make_node(
        "Cast", [exponent], {"to": int(ir.DataType.FLOAT)}, name=f"{node.name}_exponent"
    )
    cast.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    cast.outputs[0].shape = exponent.shape
    power = make_node("Pow", [base, cast.outputs[0]], name=node.name, like=node.outputs[0])
    replace_node(node, [cast, power])
