"""Writes out the iterations of a Scan over a short sequence."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx_ir import convenience

from sparsert.passes import infer_shapes
from sparsert.passes.graph_tools import (
    add_initializer,
    attribute,
    dim_at,
    is_op,
    make_node,
    nodes_of,
    rank_of,
)

# Iterations of a Scan and nodes of all its iterations, at most.
_MAX_ITERATIONS = 128
_MAX_NODES = 4096


def run(model: ir.Model) -> None:
    """Unrolls Scan nodes of the main graph whose length is known, in place.

    A body with a subgraph of its own is left alone.
    """
    unrolled = False
    for node in nodes_of(model.graph):
        if is_op(node, "Scan"):
            unrolled = _unroll(node, model.graph) or unrolled
    if unrolled:
        infer_shapes.run(model)


def _unroll(node: ir.Node, graph: ir.Graph) -> bool:
    body = node.attributes["body"].as_graph()
    inputs = list(node.inputs)
    count = attribute(node, "num_scan_inputs")
    states, sequences = inputs[: len(inputs) - count], inputs[len(inputs) - count :]
    outputs = len(node.outputs) - len(states)
    in_axes = attribute(node, "scan_input_axes", (0,) * count)
    out_axes = attribute(node, "scan_output_axes", (0,) * outputs)
    in_backward = attribute(node, "scan_input_directions", (0,) * count)
    out_backward = attribute(node, "scan_output_directions", (0,) * outputs)
    if any(value is None or rank_of(value) is None for value in inputs):
        return False
    iterations = dim_at(sequences[0], in_axes[0]) if sequences else None  # type: ignore[arg-type]
    if not iterations or iterations > _MAX_ITERATIONS or iterations * len(body) > _MAX_NODES:
        return False
    if any(
        found.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
        for inner in body
        for found in inner.attributes.values()
    ):
        return False
    name = node.name or "scan"
    nodes: list[ir.Node] = []
    parts: list[list[ir.Value]] = [[] for _ in range(outputs)]
    axes = [add_initializer(graph, f"{name}_axis", np.array([axis])) for axis in out_axes]
    for iteration in range(iterations):
        elements = []
        for x, axis, backward in zip(sequences, in_axes, in_backward, strict=True):
            at = np.array(iterations - 1 - iteration if backward else iteration)
            place = add_initializer(graph, f"{name}_iteration", at)
            taken = make_node("Gather", [x, place], {"axis": axis}, name=f"{name}_{len(nodes)}")
            nodes.append(taken)
            elements.append(taken.outputs[0])
        known = dict(zip(body.inputs, [*states, *elements], strict=True))
        for inner in body:
            nodes.append(_copy(inner, known, f"{name}_{len(nodes)}"))
        results = [known.get(value, value) for value in body.outputs]
        states = results[: len(states)]
        for part, value, axis in zip(parts, results[len(states) :], axes, strict=True):
            wide = make_node("Unsqueeze", [value, axis], name=f"{name}_{len(nodes)}")
            nodes.append(wide)
            part.append(wide.outputs[0])
    finals: list[ir.Value] = []
    for value in states:
        last = make_node("Identity", [value], name=f"{name}_{len(nodes)}")
        nodes.append(last)
        finals.append(last.outputs[0])
    for part, axis, backward in zip(parts, out_axes, out_backward, strict=True):
        ordered = part[::-1] if backward else part
        whole = make_node("Concat", ordered, {"axis": axis}, name=f"{name}_{len(nodes)}")
        nodes.append(whole)
        finals.append(whole.outputs[0])
    for old, new in zip(node.outputs, finals, strict=True):
        new.type, new.shape = old.type, old.shape
    convenience.replace_nodes_and_values(graph, node, [node], nodes, node.outputs, finals)
    return True


def _copy(node: ir.Node, known: dict[ir.Value, ir.Value | None], name: str) -> ir.Node:
    """Returns a node on what `known` maps its inputs to, and adds its outputs to the map."""
    made = ir.Node(
        node.domain,
        node.op_type,
        [value if value is None else known.get(value, value) for value in node.inputs],
        list(node.attributes.values()),
        num_outputs=len(node.outputs),
        name=name,
    )
    for old, new in zip(node.outputs, made.outputs, strict=True):
        new.type, new.shape = old.type, old.shape
        known[old] = new
    return made
