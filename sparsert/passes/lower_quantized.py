"""Turns QuantizeLinear and DequantizeLinear into casts and arithmetic in f32."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx_ir as ir

from sparsert.passes.chain import Chain
from sparsert.passes.graph_tools import (
    attribute,
    dim_at,
    input_at,
    is_f32,
    is_op,
    nodes_of,
    rank_of,
)

_TYPES = frozenset({ir.DataType.UINT8, ir.DataType.INT8, ir.DataType.UINT16, ir.DataType.INT16})


def run(model: ir.Model) -> None:
    """Lowers both for integers of 8 and 16 bits (to f32: 32 bits too), in place."""
    for node in nodes_of(model.graph):
        if not is_op(node, "QuantizeLinear", "DequantizeLinear"):
            continue
        x, scale = input_at(node, 0), input_at(node, 1)
        if x is None or not is_f32(scale):
            continue
        assert scale is not None
        chain = Chain(node, model.graph)
        zero = input_at(node, 2)
        if attribute(node, "block_size", 0):
            blocks = _Blocks.of(node, x, scale)
            if blocks is None:
                continue
            scale = blocks.by_element(chain, scale, "scale")
            zero = None if zero is None else blocks.by_element(chain, zero, "zero")
            along: int | None = 0
        else:
            along = _along_axis(node, x, scale)
        if along is None:
            continue
        lower = _quantize if node.op_type == "QuantizeLinear" else _dequantize
        if lower(node, x, scale, zero, along, chain):
            chain.replace()


@dataclasses.dataclass(frozen=True)
class _Blocks:
    """How a scale goes with blocks of elements along one axis."""

    axis: int
    size: int
    elements: int  # along the axis
    shape: tuple[int, ...]  # of the scale

    @staticmethod
    def of(node: ir.Node, x: ir.Value, scale: ir.Value) -> _Blocks | None:
        """Returns them, or None where sizes are unknown."""
        rank = rank_of(x)
        if not rank or rank_of(scale) != rank or scale.shape is None:
            return None
        axis = attribute(node, "axis", 1) % rank
        elements = dim_at(x, axis)
        if elements is None or not scale.shape.is_static():
            return None
        shape = tuple(int(dim) for dim in scale.shape.numpy())
        return _Blocks(axis, attribute(node, "block_size"), elements, shape)

    def by_element(self, chain: Chain, value: ir.Value, what: str) -> ir.Value:
        """Repeats the value of each block, one for each of its elements."""
        index = np.arange(self.elements) // self.size
        places = chain.constant(f"{what}_of_element", index)
        shape = ir.Shape([*self.shape[: self.axis], self.elements, *self.shape[self.axis + 1 :]])
        return chain.add("Gather", [value, places], shape, axis=self.axis)


def _quantize(
    node: ir.Node, x: ir.Value, scale: ir.Value, zero: ir.Value | None, along: int, chain: Chain
) -> bool:
    dtype = node.outputs[0].dtype
    if dtype not in _TYPES or not is_f32(x):
        return False
    y = chain.add("Round", [chain.add("Div", [x, _spread(chain, scale, along, "scale")])])
    if zero is not None:
        offset = chain.add("Cast", [zero], to=int(ir.DataType.FLOAT))
        y = chain.add("Add", [y, _spread(chain, offset, along, "zero")])
    limits = np.iinfo(dtype.numpy())
    low = chain.constant("low", np.array(limits.min, np.float32))
    high = chain.constant("high", np.array(limits.max, np.float32))
    limited = chain.add("Clip", [y, low, high])
    if limits.min < 0:  # a Cast makes 0 of NaN, which is to become the least one
        is_number = chain.add("Equal", [y, y])
        is_number.type = ir.TensorType(ir.DataType.BOOL)
        limited = chain.add("Where", [is_number, limited, low])
        limited.type = y.type
    chain.add("Cast", [limited], to=int(dtype))
    return True


def _dequantize(
    node: ir.Node, x: ir.Value, scale: ir.Value, zero: ir.Value | None, along: int, chain: Chain
) -> bool:
    known = x.dtype in _TYPES or x.dtype == ir.DataType.INT32
    if not known or not is_f32(node.outputs[0]):
        return False
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
