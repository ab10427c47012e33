"""Recognises activations that exporters spell out with simpler operators."""

from __future__ import annotations

import math

import onnx_ir as ir
from onnx_ir.passes import common

from sparsert.passes.graph_tools import (
    attribute,
    constant_scalar,
    has_single_use,
    input_at,
    is_f32,
    is_op,
    make_node,
    nodes_of,
    replace_node,
)

_Match = tuple[str, ir.Value, dict[str, float | str]]


def run(model: ir.Model) -> None:
    """Replaces products that form Swish, HardSwish, HardSigmoid, Gelu or Mish, in place.

    A product is flattened into a coefficient and its factors first, so that the order in which an
    exporter multiplies does not matter (onnxscript's rules know fixed orders).
    """
    for node in nodes_of(model.graph):
        if not is_op(node, "Mul", "Div") or not is_f32(node.outputs[0]):
            continue
        coefficient, factors = _flatten(node)
        match = _match(coefficient, factors)
        if match is not None:
            op_type, x, attributes = match
            replace_node(
                node, make_node(op_type, [x], attributes, name=node.name, like=node.outputs[0])
            )
    common.RemoveUnusedNodesPass()(model)


def _flatten(node: ir.Node) -> tuple[float, list[ir.Value]]:
    """Returns (c, values) such that the node's output is c times the product of the values."""
    coefficient = 1.0
    factors: list[ir.Value] = []
    for index, value in enumerate(node.inputs):
        assert value is not None
        scalar = constant_scalar(value)
        producer = value.producer()
        divides = node.op_type == "Div" and index == 1
        if scalar is not None and not (divides and scalar == 0):
            coefficient *= 1 / scalar if divides else scalar
        elif divides:
            return math.nan, []
        elif producer is not None and is_op(producer, "Mul", "Div") and has_single_use(value):
            inner, more = _flatten(producer)
            coefficient *= inner
            factors.extend(more)
        else:
            factors.append(value)
    return coefficient, factors


def _match(coefficient: float, factors: list[ir.Value]) -> _Match | None:
    if len(factors) == 1 and _close(coefficient, 1 / 6):
        x = _relu6_of_shifted(factors[0])
        if x is not None:
            return "HardSigmoid", x, {"alpha": 1 / 6, "beta": 0.5}
    if len(factors) != 2:
        return None
    for x, gate in (factors, factors[::-1]):
        found = _match_gate(coefficient, x, gate)
        if found is not None:
            return found[0], x, found[1]
    return None


def _match_gate(
    coefficient: float, x: ir.Value, gate: ir.Value
) -> tuple[str, dict[str, float | str]] | None:
    producer = gate.producer()
    if producer is None:
        return None
    if _close(coefficient, 1):
        if is_op(producer, "Sigmoid"):
            alpha = _multiple_of(producer.inputs[0], x)
            if alpha is not None:
                return "Swish", {"alpha": alpha}
        if is_op(producer, "HardSigmoid") and producer.inputs[0] is x:
            alpha, beta = attribute(producer, "alpha", 0.2), attribute(producer, "beta", 0.5)
            if _close(alpha, 1 / 6) and _close(beta, 0.5):
                return "HardSwish", {}
        if is_op(producer, "Tanh"):
            inner = producer.inputs[0].producer() if producer.inputs[0] is not None else None
            if inner is not None and is_op(inner, "Softplus") and inner.inputs[0] is x:
                return "Mish", {}
    if _close(coefficient, 1 / 6) and _relu6_of_shifted(gate) is x:
        return "HardSwish", {}
    if _close(coefficient, 0.5):
        curve = _shifted_by(gate, 1.0)
        inner = curve.producer() if curve is not None else None
        if inner is not None and is_op(inner, "Erf"):
            scale = _multiple_of(inner.inputs[0], x)
            if scale is not None and _close(scale, math.sqrt(0.5)):
                return "Gelu", {}
        if inner is not None and is_op(inner, "Tanh") and _is_gelu_cubic(inner.inputs[0], x):
            return "Gelu", {"approximate": "tanh"}
    return None


def _close(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=1e-4)


def _shifted_by(value: ir.Value | None, offset: float) -> ir.Value | None:
    """Returns y if value = y + offset."""
    node = value.producer() if value is not None else None
    if node is None or not is_op(node, "Add"):
        return None
    a, b = node.inputs
    for y, other in ((a, b), (b, a)):
        scalar = constant_scalar(other)
        if scalar is not None and _close(scalar, offset):
            return y
    return None


def _relu6_of_shifted(value: ir.Value) -> ir.Value | None:
    """Returns x if value = min(max(x + 3, 0), 6)."""
    node = value.producer()
    if node is None or not is_op(node, "Clip"):
        return None
    if constant_scalar(input_at(node, 1)) != 0 or constant_scalar(input_at(node, 2)) != 6:
        return None
    return _shifted_by(node.inputs[0], 3.0)


def _multiple_of(value: ir.Value | None, x: ir.Value) -> float | None:
    """Returns c if value = c * x."""
    if value is x:
        return 1.0
    node = value.producer() if value is not None else None
    if node is None or not is_op(node, "Mul", "Div"):
        return None
    coefficient, factors = _flatten(node)
    return coefficient if len(factors) == 1 and factors[0] is x else None


def _is_gelu_cubic(value: ir.Value | None, x: ir.Value) -> bool:
    """Says whether value = sqrt(2 / pi) * (x + 0.044715 * x^3)."""
    node = value.producer() if value is not None else None
    if node is None or not is_op(node, "Mul", "Div"):
        return False
    coefficient, factors = _flatten(node)
    if not _close(coefficient, math.sqrt(2 / math.pi)):
        return False
    if len(factors) == 1:
        total = factors[0].producer()
        if total is None or not is_op(total, "Add"):
            return False
        a, b = total.inputs
        return (a is x and _is_cubic_term(b, x)) or (b is x and _is_cubic_term(a, x))
    # x * (1 + 0.044715 * x^2)
    if len(factors) == 2 and x in factors:
        rest = factors[1] if factors[0] is x else factors[0]
        return _is_power_term(_shifted_by(rest, 1.0), x, 2)
    return False


def _is_cubic_term(value: ir.Value | None, x: ir.Value) -> bool:
    return _is_power_term(value, x, 3)


def _is_power_term(value: ir.Value | None, x: ir.Value, power: int) -> bool:
    """Says whether value = 0.044715 * x^power."""
    node = value.producer() if value is not None else None
    if node is None or not is_op(node, "Mul"):
        return False
    coefficient, factors = _flatten(node)
    if not _close(coefficient, 0.044715):
        return False
    degree = 0
    for factor in factors:
        producer = factor.producer()
        if factor is x:
            degree += 1
        elif producer is not None and is_op(producer, "Pow") and producer.inputs[0] is x:
            exponent = constant_scalar(input_at(producer, 1))
            if exponent is None or exponent != int(exponent):
                return False
            degree += int(exponent)
        elif producer is not None and is_op(producer, "Mul") and _is_square(producer, x):
            degree += 2
        else:
            return False
    return degree == power


def _is_square(node: ir.Node, x: ir.Value) -> bool:
    return all(value is x for value in node.inputs)
