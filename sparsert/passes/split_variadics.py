"""Turns Sum, Mean and Min or Max of many inputs into chains of binary operators."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from sparsert.passes.graph_tools import (
    add_initializer,
    is_f32,
    is_op,
    make_node,
    nodes_of,
    replace_node,
)

_BINARY = {"Sum": "Add", "Mean": "Add", "Min": "Min", "Max": "Max"}


def run(model: ir.Model) -> None:
    """Leaves only elementwise operators with exactly two inputs, in place."""
    for node in nodes_of(model.graph):
        if not is_op(node, *_BINARY):
            continue
        if not node.inputs or (len(node.inputs) == 2 and node.op_type in ("Min", "Max")):
            continue
        if len(node.inputs) == 1:
            # Elsewhere these are dropped; between a graph input and an output a node must stay.
            replace_node(node, make_node("Identity", node.inputs, name=node.name))
            continue
        if node.op_type == "Mean" and not is_f32(node.inputs[0]):
            continue
        replace_node(node, _chain(node, model.graph))


def _chain(node: ir.Node, graph: ir.Graph) -> list[ir.Node]:
    nodes: list[ir.Node] = []
    total = node.inputs[0]
    for index, value in enumerate(node.inputs[1:], 1):
        name = node.name if index == 1 else f"{node.name}_{index}"
        step = make_node(_BINARY[node.op_type], [total, value], name=name)
        step.outputs[0].type = node.outputs[0].type
        nodes.append(step)
        total = step.outputs[0]
    if node.op_type == "Mean":
        count = np.array(1 / len(node.inputs), dtype=np.float32)
        factor = add_initializer(graph, f"{node.name}_factor", count)
        nodes.append(make_node("Mul", [total, factor], name=f"{node.name}_mean"))
    return nodes
