"""Refuses QuantizeLinear and DequantizeLinear with too many or too few scales or zero points."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from sparsert.errors import ModelFormatError, describe_problems
from sparsert.passes.graph_tools import attribute, dim_at, input_at, is_op, rank_of


def run(model: ir.Model) -> None:
    """Checks the nodes of the main graph.

    Raises:
        ModelFormatError: lists every shape that contradicts another one.
    """
    problems = [
        f"node '{node.name}' ({node.op_type}): {problem}"
        for node in model.graph
        if is_op(node, "QuantizeLinear", "DequantizeLinear")
        for problem in _problems(node)
    ]
    if problems:
        raise ModelFormatError(describe_problems("the model", problems))


def _problems(node: ir.Node) -> Iterator[str]:
    x, scale, zero = (input_at(node, index) for index in range(3))
    if x is None or scale is None:
        return
    scales, zeros = _elements(scale), _elements(zero)
    if zero is not None and None not in (scales, zeros) and scales != zeros:
        yield f"{scales} scales '{scale.name}', but {zeros} zero points '{zero.name}'"
    rank = rank_of(x)
    block_size = attribute(node, "block_size", 0)
    if block_size < 0:
        yield f"its block_size is {block_size}, expected 0 or more"
    if rank is None or scales is None or block_size < 0:
        return
    axis = attribute(node, "axis", 1)
    if block_size:
        yield from _block_problems(x, scale, axis, block_size)
    elif scales == 1:
        return
    elif rank_of(scale) != 1:
        yield f"its scales '{scale.name}' have {rank_of(scale)} dimensions, expected 1"
    elif not -rank <= axis < rank:
        yield f"its axis is {axis}, but '{x.name}' has {rank} dimensions"
    elif dim_at(x, axis) not in (scales, None):
        yield (
            f"{scales} scales '{scale.name}' for dimension {axis % rank} of '{x.name}', which "
            f"has {dim_at(x, axis)} elements"
        )


def _block_problems(x: ir.Value, scale: ir.Value, axis: int, block_size: int) -> Iterator[str]:
    """Blocks have a scale each: those of the axis, and elements of all other dimensions."""
    assert x.shape is not None
    rank = len(x.shape)
    if rank_of(scale) != rank:
        yield f"its scales '{scale.name}' have {rank_of(scale)} dimensions, expected {rank}"
    elif not -rank <= axis < rank:
        yield f"its axis is {axis}, but '{x.name}' has {rank} dimensions"
    else:
        for d in range(rank):
            size, found = dim_at(x, d), dim_at(scale, d)
            expected = size
            if d == axis % rank and size is not None:
                expected = -(-size // block_size)
            if None not in (expected, found) and expected != found:
                yield (
                    f"dimension {d} of '{x.name}' has {size} elements, but its scales "
                    f"'{scale.name}' have {found}, expected {expected} (blocks of {block_size} "
                    f"along dimension {axis % rank})"
                )


def _elements(value: ir.Value | None) -> int | None:
    """Returns the number of elements, if it is known."""
    if value is None or value.shape is None or not value.shape.is_static():
        return None
    count = 1
    for dim in value.shape.numpy():
        count *= int(dim)
    return count
