"""Brings quantised products of the rows of a matrix back to the tokens that the rows were.

Optimisers make Reshape, Gemm, Reshape of a MatMul and its bias. The rows of a matrix are as many
vectors, each multiplied on its own; the tokens of a sequence are the columns of one product. So a
Reshape to rows goes behind what sees each number on its own, and behind the Gemm, which becomes a
MatMul and an Add again: there it meets the Reshape that took it back.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from sparsert.passes.chain import Chain
from sparsert.passes.fuse_activations import activation_of
from sparsert.passes.graph_tools import (
    attribute,
    constant_array,
    constant_scalar,
    dim_at,
    input_at,
    is_op,
    make_node,
    nodes_of,
    rank_of,
    take_over,
)
from sparsert.passes.quantisation import is_dequantised, read_quantisation

# Sequences of fewer tokens leave most of a vector empty: there rows are no worse.
_MANY = 16
_BINARY = ("Add", "Sub", "Mul", "Div")


def run(model: ir.Model) -> None:
    """Changes the quantised products of the main graph, in place."""
    graph = model.graph
    if not any(is_op(node, "DequantizeLinear") for node in graph):
        return
    for node in nodes_of(graph):
        if is_op(node, "Reshape"):
            _skip_reshape(node)
        elif is_op(node, "Gemm", "MatMul"):
            _as_tokens(node, graph)
        else:
            _sink(node, graph)


def _target(value: ir.Value | None) -> list[int] | None:
    """Returns the shape as a Reshape takes it, -1 for a dimension that is not known; else None."""
    dims = [] if value is None else [dim_at(value, i) for i in range(rank_of(value) or 0)]
    if not dims or dims.count(None) > 1 or 0 in dims:
        return None
    return [-1 if dim is None else dim for dim in dims]


def _source(value: ir.Value | None) -> ir.Value | None:
    """Returns what a Reshape that leaves the last dimension alone makes `value` of; else None."""
    node = None if value is None else value.producer()
    if node is None or value is None or not is_op(node, "Reshape"):
        return None
    x = node.inputs[0]
    if x is None or _target(value) is None:
        return None
    if dim_at(x, -1) is None or dim_at(x, -1) != dim_at(value, -1):
        return None
    return x if _is_one(x) or rank_of(value) == 2 else None


def _is_one(x: ir.Value) -> bool:
    """Says whether a value is one sequence of tokens."""
    return rank_of(x) == 3 and dim_at(x, 0) == 1


def _skip_reshape(node: ir.Node) -> None:
    """Lets a Reshape read what another one reads."""
    x = _source(node.inputs[0])
    target = constant_array(input_at(node, 1))
    if x is not None and target is not None and target.all():
        node.replace_input_with(0, x)


def _reshaped(node: ir.Node, graph: ir.Graph, x: ir.Value, shape: list[int]) -> ir.Node:
    """Builds a Reshape whose result is that of `node`."""
    target = Chain(node, graph).constant("shape", np.array(shape, np.int64))
    return make_node("Reshape", [x, target], name=node.name, like=node.outputs[0])


def _as_tokens(node: ir.Node, graph: ir.Graph) -> None:
    """Replaces a product with constant weights by one of tokens."""
    x, weight, bias, y = *node.inputs[:2], input_at(node, 2), node.outputs[0]
    shape = _target(y)
    if x is None or not shape or shape[-1] < 0 or math.prod(shape[:-1]) == 1:
        return
    if rank_of(weight) != 2 or not is_dequantised(weight) or not _is_plain(node):
        return
    tokens = _source(x)
    if tokens is None or tokens.shape is None or rank_of(tokens) == 2:
        return
    if not is_op(tokens.producer(), "DequantizeLinear"):
        return
    if not _is_one(tokens) and (dim_at(tokens, -2) or _MANY) < _MANY:
        return
    chain = Chain(node, graph)
    if attribute(node, "transB", 0):
        weight = chain.add("Transpose", [weight], perm=[1, 0])
    made = ir.Shape([*list(tokens.shape)[:-1], shape[-1]])
    product = chain.add("MatMul", [tokens, weight], made)
    if bias is not None:
        product = chain.add("Add", [product, bias], made)
    target = chain.constant("shape", np.array(shape, np.int64))
    chain.add("Reshape", [product, target])
    chain.replace()


def _is_plain(node: ir.Node) -> bool:
    """Says whether a product is that of its inputs, and a bias for each output."""
    bias = input_at(node, 2)
    factors = (attribute(node, "alpha", 1.0), attribute(node, "beta", 1.0))
    is_row = bias is None or rank_of(bias) == 1
    return is_row and factors == (1.0, 1.0) and not attribute(node, "transA", 0)


def _sink(node: ir.Node, graph: ir.Graph) -> None:
    """Brings a Reshape of a node's input behind it."""
    sources = [_source(value) for value in node.inputs]
    x = next((source for source in sources if source is not None), None)
    y, shape = node.outputs[0], _target(node.outputs[0])
    if x is None or len(node.outputs) != 1 or not shape or not _sees_numbers(node, sources):
        return
    for index, source in enumerate(sources):
        if source is not None:
            node.replace_input_with(index, source)
    reshape = _reshaped(node, graph, y, shape)
    reshape.replace_input_with(0, x)  # until it has taken over what reads y
    take_over(y, reshape.outputs[0])
    reshape.replace_input_with(0, y)
    y.shape = x.shape
    graph.insert_after(node, reshape)


def _sees_numbers(node: ir.Node, sources: list[ir.Value | None]) -> bool:
    """Says whether a node does the same to each number of its input, whatever the shape."""
    if is_op(node, "QuantizeLinear", "DequantizeLinear"):
        return read_quantisation(node) is not None
    if activation_of(node) is not None:
        return True
    if len(sources) != 2 or not is_op(node, *_BINARY):
        return False
    other = node.inputs[1 if sources[1] is None else 0]
    return rank_of(other) == 0 and constant_scalar(other) is not None
