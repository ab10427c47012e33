"""Turns elementwise operators without kernels of their own into ones that have them."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from sparsert.passes.chain import Chain
from sparsert.passes.graph_tools import attribute, constant, input_at, is_f32, is_op, nodes_of

# An EyeLike of more elements is not made a constant.
_MAX_EYE = 1 << 24
_BOOL = ir.TensorType(ir.DataType.BOOL)


def run(model: ir.Model) -> None:
    """Lowers EyeLike and, on f32, Shrink, IsNaN, IsInf, PRelu with a slope of the run; in place."""
    for node in nodes_of(model.graph):
        x = input_at(node, 0)
        if x is None or node.domain != "":
            continue
        chain = Chain(node, model.graph)
        if is_op(node, "EyeLike"):
            done = _eye(node, x, chain)
        elif not is_f32(x):
            continue
        elif is_op(node, "Shrink"):
            done = _shrink(node, x, chain)
        elif is_op(node, "PRelu") and constant(input_at(node, 1)) is None:
            zero = chain.constant("zero", np.array(0, np.float32))
            below = chain.add("Mul", [chain.add("Min", [x, zero]), node.inputs[1]])
            chain.add("Add", [chain.add("Relu", [x]), below])
            done = True
        elif is_op(node, "IsNaN"):
            same = chain.add("Equal", [x, x])
            same.type = _BOOL
            chain.add("Not", [same])
            done = True
        elif is_op(node, "IsInf"):
            done = _is_infinite(node, x, chain)
        else:
            continue
        if done:
            chain.replace()


def _eye(node: ir.Node, x: ir.Value, chain: Chain) -> bool:
    if x.shape is None or not x.shape.is_static() or node.outputs[0].dtype is None:
        return False
    rows, cols = x.shape.numpy()
    if rows * cols > _MAX_EYE:
        return False
    eye = np.eye(rows, cols, attribute(node, "k", 0), node.outputs[0].dtype.numpy())
    chain.add("Identity", [chain.constant("eye", eye)])
    return True


def _shrink(node: ir.Node, x: ir.Value, chain: Chain) -> bool:
    """X beyond [-lambd, lambd] moved towards 0 by bias, 0 within."""
    threshold, bias = attribute(node, "lambd", 0.5), attribute(node, "bias", 0.0)
    if threshold < 0:
        return False
    above = chain.add("ThresholdedRelu", [x], alpha=float(threshold))
    below = chain.add("ThresholdedRelu", [chain.add("Neg", [x])], alpha=float(threshold))
    y = chain.add("Sub", [above, below])
    if bias:
        amount = chain.constant("bias", np.array(bias, np.float32))
        chain.add("Sub", [y, chain.add("Mul", [chain.add("Sign", [y]), amount])])
    return True


def _is_infinite(node: ir.Node, x: ir.Value, chain: Chain) -> bool:
    above = attribute(node, "detect_positive", 1)
    below = attribute(node, "detect_negative", 1)
    if not above and not below:
        return False
    if above and below:
        x = chain.add("Abs", [x])
    chain.add("Equal", [x, chain.constant("inf", np.array(np.inf if above else -np.inf, "f4"))])
    return True
