"""Takes Transposes out of the Reshapes that exporters wrap them into."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import common

from sparsert.passes.graph_tools import (
    attribute,
    input_at,
    is_op,
    make_node,
    nodes_of,
    replace_node,
    same_shape,
)


def run(model: ir.Model) -> None:
    """Replaces Reshape [-1, T, D], Transpose [0, 2, 1], Reshape [..., D, T] by one Transpose.

    torch exports the exchange of the last two axes so where the number of axes is not known to
    its function.
    """
    for node in nodes_of(model.graph):
        source = _turned_source(node)
        if source is None or source.shape is None:
            continue
        rank = len(source.shape)
        perm = [*range(rank - 2), rank - 1, rank - 2]
        replace_node(
            node,
            make_node("Transpose", [source], {"perm": perm}, name=node.name, like=node.outputs[0]),
        )
    common.RemoveUnusedNodesPass()(model)


def _turned_source(node: ir.Node) -> ir.Value | None:
    """Returns x if `node` is the last of the three."""
    if not is_op(node, "Reshape"):
        return None
    turned = input_at(node, 0)
    turn = turned.producer() if turned is not None else None
    if turn is None or not is_op(turn, "Transpose") or attribute(turn, "perm") != (0, 2, 1):
        return None
    joined = turn.inputs[0]
    join = joined.producer() if joined is not None else None
    if join is None or joined is None or not is_op(join, "Reshape"):
        return None
    source, result = join.inputs[0], node.outputs[0]
    if source is None or source.shape is None or joined.shape is None or result.shape is None:
        return None
    if len(source.shape) < 2 or len(joined.shape) != 3:
        return None
    *first, rows, columns = source.shape
    wanted = ir.Value(shape=ir.Shape([*first, columns, rows]))
    middle = ir.Value(shape=ir.Shape([rows, columns]))
    found = ir.Value(shape=ir.Shape(list(joined.shape)[1:]))
    return source if same_shape(result, wanted) and same_shape(found, middle) else None
