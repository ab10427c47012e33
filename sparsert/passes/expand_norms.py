"""Expands normalisations that have no kernel into reductions and elementwise operators."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from sparsert.passes.graph_tools import (
    SPARSERT,
    add_initializer,
    attribute,
    constant,
    dim_at,
    input_at,
    is_f32,
    is_op,
    make_node,
    nodes_of,
    rank_of,
    replace_node,
)

_NORMS = ("InstanceNormalization", "LayerNormalization", "GroupNormalization")


def run(model: ir.Model) -> None:
    """Expands f32 nodes with constant scale and bias on inputs of known rank, in place.

    A LayerNormalization whose scale and bias have the shape of what is normalised stays.
    """
    for node in nodes_of(model.graph):
        rank = rank_of(input_at(node, 0))
        if not is_op(node, *_NORMS) or rank is None or not is_f32(node.outputs[0]):
            continue
        if any(v is not None and constant(v) is None for v in node.inputs[1:]):
            continue
        if any(v.uses() or v.is_graph_output() for v in node.outputs[1:]):
            continue
        if rank < (1 if node.op_type == "LayerNormalization" else 3):
            continue
        if node.op_type == "LayerNormalization" and _has_whole_vectors(node, rank):
            continue
        scale = constant(input_at(node, 1))
        if scale is not None and scale.size == 0:  # no channels: nothing to compute
            replace_node(node, make_node("Identity", [node.inputs[0]], name=node.name))
            continue
        replace_node(node, _Expansion(node, model.graph).nodes(rank))


def _has_whole_vectors(node: ir.Node, rank: int) -> bool:
    """Says whether scale and bias have the shape of the axes that are normalised."""
    x = node.inputs[0]
    first = attribute(node, "axis", -1) % rank
    for value in node.inputs[1:]:
        if value is None:
            continue
        if rank_of(value) != rank - first:
            return False
        assert x is not None
        for axis in range(first, rank):
            size, known = dim_at(value, axis - first), dim_at(x, axis)
            if size is None or (size == 1 and known is None) or known not in (None, size):
                return False
    return True


class _Expansion:
    """Collects the nodes that one normalisation becomes."""

    def __init__(self, node: ir.Node, graph: ir.Graph) -> None:
        self._node, self._graph = node, graph
        self._name = node.name or "norm"
        self._nodes: list[ir.Node] = []

    def nodes(self, rank: int) -> list[ir.Node]:
        """Returns the nodes; the last one's output is the result."""
        node = self._node
        x, scale, bias = node.inputs[0], node.inputs[1], input_at(node, 2)
        assert x is not None
        if node.op_type == "LayerNormalization":
            first = attribute(node, "axis", -1) % rank
            y = self._standardise(x, list(range(first, rank)), x.shape)
            y = self._add("Mul", [y, scale], x.shape)
            if bias is not None:
                self._add("Add", [y, bias], x.shape)
            return self._nodes
        if node.op_type == "InstanceNormalization":
            y = self._standardise(x, list(range(2, rank)), x.shape)
        else:
            groups = attribute(node, "num_groups")
            split = self._constant("groups", np.array([0, groups, -1]))
            assert x.shape is not None
            shape = ir.Shape([x.shape[0], groups, None])
            y = self._standardise(self._add("Reshape", [x, split], shape), [2], shape)
            target = self._add("Shape", [x], ir.Shape([rank]), ir.DataType.INT64)
            y = self._add("Reshape", [y, target], x.shape)
        self._add("BatchNormalization", [y, scale, bias], x.shape, domain=SPARSERT)
        return self._nodes

    def _standardise(self, x: ir.Value, axes: list[int], shape: ir.Shape | None) -> ir.Value:
        """Returns (x - mean) / sqrt(variance + epsilon) over the axes."""
        along = self._constant("axes", np.array(axes))
        epsilon = np.array(attribute(self._node, "epsilon", 1e-5), dtype=np.float32)
        reduced = None if shape is None else _reduced(shape, axes)
        mean = self._add("ReduceMean", [x, along], reduced)
        centred = self._add("Sub", [x, mean], shape)
        square = self._add("Mul", [centred, centred], shape)
        variance = self._add("ReduceMean", [square, along], reduced)
        shifted = self._add("Add", [variance, self._constant("epsilon", epsilon)], reduced)
        deviation = self._add("Sqrt", [shifted], reduced)
        return self._add("Div", [centred, deviation], shape)

    def _constant(self, what: str, array: np.ndarray) -> ir.Value:
        return add_initializer(self._graph, f"{self._name}_{what}", array)

    def _add(
        self,
        op_type: str,
        inputs: list[ir.Value | None],
        shape: ir.Shape | None,
        dtype: ir.DataType = ir.DataType.FLOAT,
        domain: str = "",
    ) -> ir.Value:
        name = f"{self._name}_{len(self._nodes)}"
        node = make_node(op_type, inputs, {}, domain, name)
        value = node.outputs[0]
        value.type, value.shape = ir.TensorType(dtype), shape
        self._nodes.append(node)
        return value


def _reduced(shape: ir.Shape, axes: list[int]) -> ir.Shape:
    return ir.Shape([1 if i in axes else dim for i, dim in enumerate(shape)])
