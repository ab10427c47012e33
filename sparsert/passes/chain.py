"""Chain: collects the nodes that one node becomes, and puts them in its place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from sparsert.passes.graph_tools import add_initializer, make_node, replace_node, take_over


class Chain:
    """What a node becomes, in order; the last one's output is the result.

    Types follow from the operators, so that later passes see them; shapes come from infer_shapes.

    Args:
        node: the node that is replaced; it names the new ones.
        graph: its graph.
    """

    def __init__(self, node: ir.Node, graph: ir.Graph) -> None:
        self._node, self._graph = node, graph
        self._name = node.name or node.op_type
        self._nodes: list[ir.Node] = []

    def constant(self, what: str, array: np.ndarray) -> ir.Value:
        """Adds an initializer."""
        return add_initializer(self._graph, f"{self._name}_{what}", array)

    def initializer(self, what: str, tensor: ir.TensorProtocol) -> ir.Value:
        """Adds an initializer that may be lazy."""
        return add_initializer(self._graph, f"{self._name}_{what}", tensor)

    def add(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        shape: ir.Shape | None = None,
        domain: str = "",
        **attributes: Any,
    ) -> ir.Value:
        """Adds a node of one output, of the type of its first input, or the one it names."""
        name = f"{self._name}_{len(self._nodes)}"
        made = make_node(op_type, inputs, attributes, domain, name)
        first = inputs[0]
        assert first is not None
        is_cast = op_type == "Cast"
        made.outputs[0].type = (
            ir.TensorType(ir.DataType(attributes["to"])) if is_cast else first.type
        )
        made.outputs[0].shape = shape
        self._nodes.append(made)
        return made.outputs[0]

    def add_outputs(
        self, op_type: str, inputs: Sequence[ir.Value | None], count: int, **attributes: Any
    ) -> list[ir.Value]:
        """Adds a node of several outputs, all of the type of its first input."""
        name = f"{self._name}_{len(self._nodes)}"
        made = ir.node(op_type, inputs, attributes, num_outputs=count, name=name)
        first = inputs[0]
        assert first is not None
        for value in made.outputs:
            value.type = first.type
        self._nodes.append(made)
        return list(made.outputs)

    def give(self, index: int, value: ir.Value) -> None:
        """Lets a value of the chain take the place of another output than the first."""
        old = self._node.outputs[index]
        value.type, value.shape = old.type or value.type, old.shape
        take_over(old, value)

    def replace(self) -> None:
        """Puts the nodes where the first one was."""
        last = self._nodes[-1].outputs[0]
        last.type, last.shape = self._node.outputs[0].type, self._node.outputs[0].shape
        replace_node(self._node, self._nodes)

    def drop(self) -> None:
        """Gives up what was added, so that nothing counts as used by it; the node stays."""
        for made in self._nodes:
            for index in range(len(made.inputs)):
                made.replace_input_with(index, None)
        self._nodes.clear()
