"""Fuses activations into the operator that computes their argument."""

from __future__ import annotations

import re

import numpy as np
import onnx_ir as ir

from sparsert.passes.graph_tools import (
    SPARSERT,
    attribute,
    bypass,
    constant,
    constant_scalar,
    has_single_use,
    input_at,
    is_f32,
    is_op,
    make_node,
    nodes_of,
    replace_node,
)
from sparsert.passes.known_values import known_values

Activation = tuple[str, float, float]  # name, alpha, beta

_LAYERS = ("Conv", "ConvTranspose", "Linear", "BatchNormalization")
_RESHAPES = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")
_BINARY = ("Add", "Sub", "Mul", "Div", "Pow", "Min", "Max")
_PLAIN = frozenset(
    "Relu HardSwish Sigmoid Tanh Exp Log Sqrt Abs Neg Reciprocal Floor Ceil Round Erf Sin Cos "
    "Softplus Softsign Mish Sign Tan Asin Acos Atan Sinh Cosh Asinh Acosh Atanh".split()
)
# ONNX's default alpha and the second parameter's name and default.
_WITH_PARAMETERS: dict[str, tuple[float, str | None, float]] = {
    "LeakyRelu": (0.01, None, 0.0),
    "Elu": (1.0, None, 0.0),
    "Selu": (1.67326319217681884765625, "gamma", 1.05070102214813232421875),
    "Celu": (1.0, None, 0.0),
    "HardSigmoid": (0.2, "beta", 0.5),
    "ThresholdedRelu": (1.0, None, 0.0),
}
# Operators that activation_of knows.
UNARY_OPS = (*_PLAIN, *_WITH_PARAMETERS, "Swish", "Gelu", "Clip", "PRelu")
# Of a few operations. Others are as fast behind a Concat: its planes are longer than their rows, at
# whose ends a layer computes in vectors that are not full.
_CHEAP = frozenset("relu leaky_relu clip abs neg hard_sigmoid hard_swish thresholded_relu".split())
_F32_MAX = float(np.finfo(np.float32).max)


def run(model: ir.Model) -> None:
    """Turns act(op(x)) into op with the attributes act, act_alpha, act_beta, in place.

    Values that shapes are made of stay as they are, for the planner evaluates ONNX's operators.
    """
    known = known_values(model.graph)
    for node in nodes_of(model.graph):
        activation = activation_of(node)
        if activation is None:
            continue
        value = node.inputs[0]
        producer = value.producer() if value is not None else None
        if producer is None or producer.graph is not model.graph:
            continue
        if producer.outputs[0] in known:
            continue
        name, alpha, beta = activation
        takers = _takers(producer, name in _CHEAP)
        for taker in takers:
            taker.attributes["act"] = ir.AttrString("act", name)
            taker.attributes["act_alpha"] = ir.AttrFloat32("act_alpha", alpha)
            taker.attributes["act_beta"] = ir.AttrFloat32("act_beta", beta)
        if takers:
            bypass(node)


def _takers(producer: ir.Node, is_cheap: bool) -> list[ir.Node]:
    """Returns what can take the activation: one operator, the layers before a Concat, or none."""
    if is_cheap and is_op(producer, "Concat") and has_single_use(producer.outputs[0]):
        layers = [_layer(value, producer.graph) for value in producer.inputs]
        return [] if None in layers else [layer for layer in layers if layer is not None]
    producer = _behind_shapes(behind_moves(producer))
    if not _is_free(producer):
        return []
    if is_op(producer, *_BINARY) and is_f32(producer.outputs[0]):
        if any(constant(v) is None and not is_f32(v) for v in producer.inputs):
            return []
        return [_into_domain(producer)]
    layer = _layer(producer.outputs[0], producer.graph)
    return [] if layer is None else [layer]


def _layer(value: ir.Value | None, graph: ir.GraphProtocol | None) -> ir.Node | None:
    """Returns the layer that gives a value, moved at most, and can take an activation."""
    node = None if value is None else value.producer()
    if node is None or node.graph is not graph:
        return None
    layer = _behind_shapes(behind_moves(node))
    is_layer = is_op(layer, *_LAYERS, domain=SPARSERT) or gives_floats(layer)
    return layer if is_layer and _is_free(layer) else None


def _is_free(node: ir.Node) -> bool:
    return has_single_use(node.outputs[0]) and "act" not in node.attributes


def gives_floats(node: ir.Node) -> bool:
    """Says whether a node is a layer on packed bytes with f32 as its result."""
    if is_op(node, "QConvDynamic", domain=SPARSERT):
        return True
    is_layer = is_op(node, "QConv", "QDepthwise", domain=SPARSERT)
    return is_layer and attribute(node, "to") == int(ir.DataType.FLOAT)


def behind_moves(node: ir.Node) -> ir.Node:
    """Returns the layer on packed bytes that a node moves the only result of, or the node."""
    if is_op(node, "Transpose", "Squeeze") and has_single_use(node.outputs[0]):
        source = node.inputs[0]
        layer = None if source is None else source.producer()
        if layer is not None and gives_floats(layer) and has_single_use(layer.outputs[0]):
            return layer
    return node


def _behind_shapes(node: ir.Node) -> ir.Node:
    """Returns the float layer whose only result a node brings into another shape, or the node."""
    source = node
    while is_op(source, "Transpose", *_RESHAPES) and has_single_use(source.outputs[0]):
        value = source.inputs[0]
        producer = None if value is None else value.producer()
        if producer is None or producer.graph is not node.graph:
            return node
        source = producer
    return source if is_op(source, *_LAYERS, domain=SPARSERT) else node


def activation_of(node: ir.Node) -> Activation | None:
    """Returns the scalar function that a node applies, or None if it is no such node."""
    if node.domain != "":
        return None
    op = node.op_type
    if op in _PLAIN:
        return re.sub(r"(?<!^)(?=[A-Z])", "_", op).lower(), 0.0, 0.0
    if op in _WITH_PARAMETERS:
        alpha, second, default = _WITH_PARAMETERS[op]
        beta = default if second is None else attribute(node, second, default)
        return (
            re.sub(r"(?<!^)(?=[A-Z])", "_", op).lower(),
            attribute(node, "alpha", alpha),
            beta,
        )
    if op == "Swish":
        return "silu", attribute(node, "alpha", 1.0), 0.0
    if op == "Gelu":
        approximate = attribute(node, "approximate", "none")
        return ("gelu_tanh" if approximate == "tanh" else "gelu"), 0.0, 0.0
    if op == "Clip":
        low, high = _bound(node, 1, -_F32_MAX), _bound(node, 2, _F32_MAX)
        return None if low is None or high is None else ("clip", low, high)
    if op == "PRelu":
        slope = constant_scalar(input_at(node, 1))
        return None if slope is None else ("leaky_relu", slope, 0.0)
    return None


def _bound(node: ir.Node, index: int, default: float) -> float | None:
    value = input_at(node, index)
    return default if value is None else constant_scalar(value)


def _into_domain(node: ir.Node) -> ir.Node:
    moved = make_node(node.op_type, node.inputs, {}, SPARSERT, node.name, node.outputs[0])
    replace_node(node, moved)
    return moved
