"""Gives each output of the graph a value of its own, where one value is several outputs."""

from __future__ import annotations

import onnx_ir as ir

from sparsert.passes.graph_tools import make_node


def run(model: ir.Model) -> None:
    """Puts an Identity before every further output of a value, in place."""
    graph = model.graph
    names = {value.name for value in graph.outputs} | {value.name for value in graph.inputs}
    names |= {value.name for node in graph for value in node.outputs}
    seen: set[int] = set()
    for position, value in enumerate(graph.outputs):
        if id(value) not in seen:
            seen.add(id(value))
            continue
        number = 2
        while f"{value.name}_{number}" in names:
            number += 1
        name = f"{value.name}_{number}"
        names.add(name)
        node = make_node("Identity", [value], name=f"{name}_copy")
        copy = node.outputs[0]
        copy.name, copy.type, copy.shape = name, value.type, value.shape
        graph.append(node)
        graph.outputs[position] = copy
