"""Turns Constant nodes into initializers."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir import convenience
from onnx_ir.passes import common

from sparsert.passes.graph_tools import add_initializer, is_op, make_node, nodes_of, replace_node


def run(model: ir.Model) -> None:
    """Leaves no Constant node in the main graph; those in subgraphs become its initializers too."""
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    common.LiftSubgraphInitializersToMainGraphPass()(model)
    graph = model.graph
    for value in graph.initializers.values():
        tensor = value.const_value
        if type(tensor) is ir.StringTensor:
            value.const_value = _SizedStrings(
                tensor.string_data(), shape=tensor.shape, name=tensor.name
            )
    for node in nodes_of(graph):
        if is_op(node, "Constant"):  # left there because its output is one of the graph
            _lift(node, graph)
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


class _SizedStrings(ir.StringTensor):
    """Strings whose size is known: onnx_ir asks for it before it infers shapes, and fails."""

    @property
    def nbytes(self) -> int:
        return sum(map(len, self.string_data()))


def _lift(node: ir.Node, graph: ir.Graph) -> None:
    tensor = convenience.get_const_tensor(node.outputs[0])
    if tensor is not None:
        value = add_initializer(graph, f"{node.outputs[0].name}_constant", tensor)
        replace_node(node, make_node("Identity", [value], name=node.name, like=value))
