"""Turns what lower_quantized_nets leaves of DynamicQuantizeLinear into arithmetic in f32."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from sparsert.passes.chain import Chain
from sparsert.passes.graph_tools import is_f32, is_op, nodes_of

_SCALAR = ir.Shape([])


def run(model: ir.Model) -> None:
    """Replaces those of the main graph, in place.

    ONNX's definition divides by zero where all numbers are zero; here the scale is 1 then, and
    NaN has no part in the range, as in ONNX Runtime and in the operator on packed bytes.
    """
    for node in nodes_of(model.graph):
        if is_op(node, "DynamicQuantizeLinear") and is_f32(node.inputs[0]):
            _expand(node, Chain(node, model.graph))


def _expand(node: ir.Node, chain: Chain) -> None:
    x = node.inputs[0]
    assert x is not None
    none, most = _number(chain, "none", 0), _number(chain, "most", 255)
    numbers = _or_else(chain, x, none)  # NaN has no part in the range
    low, high = (_end_of_range(chain, numbers, none, kind) for kind in ("Min", "Max"))
    width = chain.add("Sub", [high, low], _SCALAR)
    is_zero = chain.add("Equal", [width, none], _SCALAR)
    is_zero.type = ir.TensorType(ir.DataType.BOOL)
    steps = chain.add("Div", [width, most], _SCALAR)
    scale = chain.add("Where", [is_zero, _number(chain, "one", 1), steps], _SCALAR)
    scale.type = x.type
    level = chain.add("Div", [chain.add("Neg", [low], _SCALAR), scale], _SCALAR)
    limited = chain.add("Clip", [_or_else(chain, level, most), none, most], _SCALAR)
    zero = chain.add("Round", [limited], _SCALAR)
    rounded = chain.add("Round", [chain.add("Div", [x, scale], x.shape)], x.shape)
    levels = chain.add("Add", [rounded, zero], x.shape)
    clipped = chain.add("Clip", [levels, none, most], x.shape)
    to = int(ir.DataType.UINT8)
    chain.give(2, chain.add("Cast", [zero], _SCALAR, to=to))
    chain.give(1, scale)
    chain.add("Cast", [clipped], x.shape, to=to)
    chain.replace()


def _number(chain: Chain, what: str, value: float) -> ir.Value:
    return chain.constant(what, np.array(value, np.float32))


def _end_of_range(chain: Chain, x: ir.Value, none: ir.Value, kind: str) -> ir.Value:
    """Returns the least or greatest of x and 0."""
    end = chain.add(f"Reduce{kind}", [x], _SCALAR, keepdims=0)
    return chain.add(kind, [end, none], _SCALAR)


def _or_else(chain: Chain, value: ir.Value, other: ir.Value) -> ir.Value:
    """Returns a value, and another one where it is NaN."""
    is_number = chain.add("Equal", [value, value], value.shape)
    is_number.type = ir.TensorType(ir.DataType.BOOL)
    made = chain.add("Where", [is_number, value, other], value.shape)
    made.type = value.type
    return made
