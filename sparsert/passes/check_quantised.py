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
    if x is None or scale is None or attribute(node, "block_size", 0):
        return
    scales, zeros = _elements(scale), _elements(zero)
    if zero is not None and None not in (scales, zeros) and scales != zeros:
        yield f"{scales} scales '{scale.name}', but {zeros} zero points '{zero.name}'"
    rank = rank_of(x)
    if rank is None or scales in (1, None):
        return
    axis = attribute(node, "axis", 1)
    if rank_of(scale) != 1:
        yield f"its scales '{scale.name}' have {rank_of(scale)} dimensions, expected 1"
    elif not -rank <= axis < rank:
        yield f"its axis is {axis}, but '{x.name}' has {rank} dimensions"
    elif dim_at(x, axis) not in (scales, None):
        yield (
            f"{scales} scales '{scale.name}' for dimension {axis % rank} of '{x.name}', which "
            f"has {dim_at(x, axis)} elements"
        )


def _elements(value: ir.Value | None) -> int | None:
    """Returns the number of elements, if it is known."""
    if value is None or value.shape is None or not value.shape.is_static():
        return None
    count = 1
    for dim in value.shape.numpy():
        count *= int(dim)
    return count
