"""Folds transposes and scalar factors into products of two activations."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from sparsert.passes.graph_tools import (
    SPARSERT,
    add_initializer,
    attribute,
    constant,
    constant_scalar,
    has_single_use,
    input_at,
    is_f32,
    is_op,
    make_node,
    nodes_of,
    rank_of,
    replace_node,
)


def run(model: ir.Model) -> None:
    """Turns f32 Gemm and MatMul without constant weights into sparsert.MatMul, in place.

    Its attributes trans_a and trans_b take up the Transposes before it, alpha the factors before
    and after it. A MatMul that has none of these stays as it is.
    """
    for node in nodes_of(model.graph):
        if not is_op(node, "Gemm", "MatMul") or not is_f32(node.outputs[0]):
            continue
        if node.op_type == "MatMul":
            _lower_matmul(node)
        else:
            _lower_gemm(node)


def _lower_gemm(node: ir.Node) -> None:
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    c, beta = input_at(node, 2), attribute(node, "beta", 1.0)
    name = node.name or "gemm"
    nodes = [
        _product(
            node.inputs[0],
            node.inputs[1],
            bool(attribute(node, "transA", 0)),
            bool(attribute(node, "transB", 0)),
            attribute(node, "alpha", 1.0),
            node,
        )
    ]
    if c is not None and beta != 0:
        if beta != 1:
            factor = add_initializer(graph, f"{name}_beta", np.array(beta, dtype=np.float32))
            nodes.append(make_node("Mul", [c, factor], name=f"{name}_scale", like=c))
            c = nodes[-1].outputs[0]
        product = nodes[0].outputs[0]
        product.type, product.shape = node.outputs[0].type, node.outputs[0].shape
        nodes.append(make_node("Add", [product, c], name=f"{name}_add", like=node.outputs[0]))
    replace_node(node, nodes)


def _lower_matmul(node: ir.Node) -> None:
    a, trans_a, alpha = _operand(node.inputs[0])
    b, trans_b, factor = _operand(node.inputs[1])
    alpha *= factor
    chain = [node]  # and the factors after it
    while has_single_use(chain[-1].outputs[0]):
        value = chain[-1].outputs[0]
        user = next(iter(value.uses())).node
        scale = _scale_of(user, value)
        if scale is None or user.graph is not node.graph:
            break
        alpha *= scale
        chain.append(user)
    if not trans_a and not trans_b and alpha == 1.0:
        return
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    replace_node(chain[-1], _product(a, b, trans_a, trans_b, alpha, node))
    for one in reversed(chain[:-1]):
        graph.remove(one, safe=True)


def _product(
    a: ir.Value | None,
    b: ir.Value | None,
    trans_a: bool,
    trans_b: bool,
    alpha: float,
    node: ir.Node,
) -> ir.Node:
    attributes: dict[str, int | float] = {}
    if trans_a:
        attributes["trans_a"] = 1
    if trans_b:
        attributes["trans_b"] = 1
    if alpha != 1.0:
        attributes["alpha"] = float(alpha)
    domain = SPARSERT if attributes else ""
    return make_node("MatMul", [a, b], attributes, domain, node.name, node.outputs[0])


def _operand(value: ir.Value | None) -> tuple[ir.Value | None, bool, float]:
    """Returns (x, transposed, factor) such that `value` is factor * x or its transpose."""
    transposed, factor = False, 1.0
    while value is not None:
        producer = value.producer()
        if producer is None:
            break
        rank = rank_of(value)
        if (
            is_op(producer, "Transpose")
            and rank is not None
            and rank >= 2
            and attribute(producer, "perm") == (*range(rank - 2), rank - 1, rank - 2)
        ):
            value, transposed = producer.inputs[0], not transposed
            continue
        if not is_op(producer, "Mul", "Div") or not has_single_use(value):
            break
        index = 0 if constant(producer.inputs[0]) is None else 1
        source = producer.inputs[index]
        scale = _scale_of(producer, source)
        if scale is None:
            break
        value, factor = source, factor * scale
    return value, transposed, factor


def _scale_of(node: ir.Node, value: ir.Value | None) -> float | None:
    """Returns c if `node` computes c * value for a number c and keeps value's shape."""
    if value is None or not is_op(node, "Mul", "Div") or node.inputs[0] is node.inputs[1]:
        return None
    other = node.inputs[1] if node.inputs[0] is value else node.inputs[0]
    scalar = constant_scalar(other)
    rank, other_rank = rank_of(value), rank_of(other)
    if scalar is None or rank is None or other_rank is None or other_rank > rank:
        return None
    if not np.isfinite(scalar):
        return None
    if node.op_type == "Mul":
        return scalar
    return 1.0 / scalar if node.inputs[0] is value and scalar != 0 else None
