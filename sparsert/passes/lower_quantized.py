"""Turns QuantizeLinear and DequantizeLinear into casts and arithmetic in f32."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from sparsert.passes.chain import Chain
from sparsert.passes.graph_tools import attribute, input_at, is_f32, is_op, nodes_of, rank_of

_TYPES = frozenset({ir.DataType.UINT8, ir.DataType.INT8, ir.DataType.UINT16, ir.DataType.INT16})


def run(model: ir.Model) -> None:
    """Lowers both for integers of 8 and 16 bits (to f32: 32 bits too), not in blocks, in place."""
    for node in nodes_of(model.graph):
        if not is_op(node, "QuantizeLinear", "DequantizeLinear"):
            continue
        x, scale = input_at(node, 0), input_at(node, 1)
        if attribute(node, "block_size", 0) or x is None or not is_f32(scale):
            continue
        assert scale is not None
        chain = Chain(node, model.graph)
        if node.op_type == "QuantizeLinear":
            done = _quantize(node, x, scale, chain)
        else:
            done = _dequantize(node, x, scale, chain)
        if done:
            chain.replace()


def _quantize(node: ir.Node, x: ir.Value, scale: ir.Value, chain: Chain) -> bool:
    dtype = node.outputs[0].dtype
    along = _along_axis(node, x, scale)
    if dtype not in _TYPES or not is_f32(x) or along is None:
        return False
    zero = input_at(node, 2)
    y = chain.add("Round", [chain.add("Div", [x, _spread(chain, scale, along, "scale")])])
    if zero is not None:
        offset = chain.add("Cast", [zero], to=int(ir.DataType.FLOAT))
        y = chain.add("Add", [y, _spread(chain, offset, along, "zero")])
    limits = np.iinfo(dtype.numpy())
    low = chain.constant("low", np.array(limits.min, np.float32))
    high = chain.constant("high", np.array(limits.max, np.float32))
    chain.add("Cast", [chain.add("Clip", [y, low, high])], to=int(dtype))
    return True


def _dequantize(node: ir.Node, x: ir.Value, scale: ir.Value, chain: Chain) -> bool:
    along = _along_axis(node, x, scale)
    known = x.dtype in _TYPES or x.dtype == ir.DataType.INT32
    if not known or not is_f32(node.outputs[0]) or along is None:
        return False
    zero = input_at(node, 2)
    y = chain.add("Cast", [x], to=int(ir.DataType.FLOAT))
    if zero is not None:
        offset = chain.add("Cast", [zero], to=int(ir.DataType.FLOAT))
        y = chain.add("Sub", [y, _spread(chain, offset, along, "zero")])
    chain.add("Mul", [y, _spread(chain, scale, along, "scale")])
    return True


def _along_axis(node: ir.Node, x: ir.Value, scale: ir.Value) -> int | None:
    """Returns the number of dimensions behind the scale's axis: 0 for one scale; None: unknown."""
    rank, scale_rank = rank_of(x), rank_of(scale)
    if scale_rank == 0 or (scale_rank == 1 and scale.shape is not None and scale.shape[0] == 1):
        return 0
    if rank is None or scale_rank != 1:
        return None
    axis = attribute(node, "axis", 1)
    return int(rank - 1 - (axis % rank))


def _spread(chain: Chain, value: ir.Value, behind: int, what: str) -> ir.Value:
    """Gives a vector one dimension of size 1 for each that follows its axis."""
    if behind == 0:
        return value
    target = chain.constant(f"{what}_shape", np.array([-1] + [1] * behind))
    return chain.add("Reshape", [value, target])
