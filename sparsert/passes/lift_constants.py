"""Turns Constant nodes into initializers."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import common


def run(model: ir.Model) -> None:
    """Leaves no Constant node in the main graph; those in subgraphs become its initializers too."""
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    common.LiftSubgraphInitializersToMainGraphPass()(model)
    graph = model.graph
    # A graph output must be produced by a node.
    for index, output in enumerate(graph.outputs):
        if output.is_initializer():
            name = output.name
            output.name = f"{name}_constant"
            node = ir.node("Identity", [output])
            node.outputs[0].name = name
            node.outputs[0].type, node.outputs[0].shape = output.type, output.shape
            graph.append(node)
            graph.outputs[index] = node.outputs[0]
