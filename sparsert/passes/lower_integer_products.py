"""Turns products and convolutions of quantised tensors into f32 ones between casts."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from sparsert.passes.chain import Chain
from sparsert.passes.graph_tools import (
    attribute,
    constant,
    input_at,
    is_f32,
    is_op,
    known_dims,
    lazy_tensor,
    nodes_of,
    rank_of,
)

_CONV_ATTRIBUTES = ("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")
# Whole numbers up to this one are exact in f32, and so are sums of them that stay below it.
_EXACT = 1 << 24
# The largest number of 8 bits, its zero point taken off.
_LARGEST = 255


def run(model: ir.Model) -> None:
    """Lowers QLinearMatMul, QLinearConv, MatMulInteger and ConvInteger, in place.

    The last two where sums are exact in f32, or go on as f32 anyway. The factors are whole numbers;
    scales come after the sum. Constant weights fold to f32 constants.
    """
    for node in nodes_of(model.graph):
        chain = Chain(node, model.graph)
        if is_op(node, "QLinearMatMul", "QLinearConv"):
            done = _lower_quantised(node, chain)
        elif is_op(node, "MatMulInteger", "ConvInteger"):
            done = _lower_integer(node, chain)
        else:
            continue
        if done:
            chain.replace()


def _lower_quantised(node: ir.Node, chain: Chain) -> bool:
    a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero = node.inputs[:8]
    if not all(is_f32(scale) for scale in (a_scale, b_scale, y_scale)):
        return False
    if any(rank_of(value) is None for value in (a, a_scale, b, b_scale)):
        return False
    total = _product(node, chain, a, a_zero, b, b_zero)
    bias = input_at(node, 8)
    behind = (rank_of(a) or 0) - 2
    is_conv = "Conv" in node.op_type
    if bias is not None:
        total = chain.add("Add", [total, _along(chain, _as_f32(chain, bias), behind, "bias")])
    row_scale = a_scale if is_conv else _along(chain, a_scale, 1, "a_scale")
    column_scale = _along(chain, b_scale, behind, "b_scale") if is_conv else b_scale
    y = chain.add("Mul", [total, chain.add("Mul", [row_scale, column_scale])])
    y.type = ir.TensorType(ir.DataType.FLOAT)
    chain.add("QuantizeLinear", [y, y_scale, y_zero])
    return True


def _lower_integer(node: ir.Node, chain: Chain) -> bool:
    a, b = node.inputs[:2]
    if rank_of(a) is None or rank_of(b) is None:
        return False
    if not (_is_cast_to_f32(node.outputs[0]) or _is_exact(node, b)):
        return False
    y = _product(node, chain, a, input_at(node, 2), b, input_at(node, 3))
    chain.add("Cast", [y], to=int(ir.DataType.INT32))
    return True


def _is_cast_to_f32(value: ir.Value) -> bool:
    """Says whether `value` only goes on as f32, which rounds it as f32 sums do."""
    users = [use.node for use in value.uses()]
    return not value.is_graph_output() and all(
        is_op(user, "Cast") and attribute(user, "to") == ir.DataType.FLOAT for user in users
    )


def _is_exact(node: ir.Node, b: ir.Value | None) -> bool:
    """Says whether every sum of the product with `b` stays within the whole numbers of f32."""
    is_conv = node.op_type == "ConvInteger"
    rank = rank_of(b) or 0
    axes = list(range(1, rank)) if is_conv else [rank - 2 if rank > 1 else 0]
    summed = known_dims(b, axes)
    if summed is not None and math.prod(summed) * _LARGEST**2 <= _EXACT:
        return True
    weight, zero = constant(b), input_at(node, 3)
    offset = constant(zero)
    if weight is None or (zero is not None and offset is None):
        return False
    taken = 0 if offset is None else offset.numpy().astype(np.int64)
    if np.ndim(taken) == 1 and is_conv:
        taken = np.reshape(taken, [-1] + [1] * (rank - 1))
    sizes = np.abs(weight.numpy() - taken).sum(axis=tuple(axes))
    return int(sizes.max(initial=0)) * _LARGEST <= _EXACT


def _product(
    node: ir.Node,
    chain: Chain,
    a: ir.Value | None,
    a_zero: ir.Value | None,
    b: ir.Value | None,
    b_zero: ir.Value | None,
) -> ir.Value:
    """Returns the product of both operands without their zero points, in f32."""
    is_conv = "Conv" in node.op_type
    a = _centred(chain, a, a_zero, 0 if is_conv else 1, "a")
    b = _centred(chain, b, b_zero, (rank_of(b) or 0) - 1 if is_conv else 0, "b")
    if not is_conv:
        return chain.add("MatMul", [a, b])
    kept = {name: attribute(node, name) for name in _CONV_ATTRIBUTES}
    return chain.add("Conv", [a, b], node.outputs[0].shape, **kept)


def _centred(
    chain: Chain, x: ir.Value | None, zero: ir.Value | None, behind: int, what: str
) -> ir.Value:
    assert x is not None
    weight, offset = constant(x), constant(zero)
    if weight is not None and (zero is None or offset is not None):
        shape = [dim for dim in weight.shape if isinstance(dim, int)]

        def compute() -> np.ndarray:
            taken = np.float32(0) if offset is None else offset.numpy().astype(np.float32)
            taken = taken.reshape([-1] + [1] * behind) if taken.ndim == 1 else taken
            return np.asarray(weight.numpy().astype(np.float32) - taken)

        return chain.initializer(what, lazy_tensor(compute, shape, what))
    y = _as_f32(chain, x)
    if zero is None:
        return y
    return chain.add(
        "Sub", [y, _along(chain, _as_f32(chain, zero), behind, f"{what}_zero")], x.shape
    )


def _as_f32(chain: Chain, x: ir.Value) -> ir.Value:
    return chain.add("Cast", [x], x.shape, to=int(ir.DataType.FLOAT))


def _along(chain: Chain, value: ir.Value | None, behind: int, what: str) -> ir.Value:
    """Gives a vector one dimension of size 1 for each that follows its axis."""
    assert value is not None
    if rank_of(value) != 1 or behind == 0:
        return value
    target = chain.constant(f"{what}_shape", np.array([-1] + [1] * behind))
    return chain.add("Reshape", [value, target])
