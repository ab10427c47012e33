"""Turns Gemm and MatMul with one constant matrix or vector into sparsert.Linear."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from sparsert.passes.graph_tools import (
    SPARSERT,
    add_initializer,
    attribute,
    constant,
    constant_array,
    input_at,
    is_f32,
    is_op,
    lazy_tensor,
    make_node,
    nodes_of,
    rank_of,
    replace_node,
)


def run(model: ir.Model) -> None:
    """Lowers f32 products with constant weights, in place; weights become [N, K].

    A weight used by several products in the same way is transposed once and stays shared.
    """
    rows = _WeightRows(model.graph)
    for node in nodes_of(model.graph):
        if not is_f32(node.outputs[0]) or len(node.inputs) < 2:
            continue
        if is_op(node, "Gemm"):
            _lower_gemm(node, rows)
        elif is_op(node, "MatMul"):
            _lower_matmul(node, rows)


class _WeightRows:
    """Makes weights [N, K] out of constant matrices, each once."""

    def __init__(self, graph: ir.Graph) -> None:
        self._graph = graph
        self._made: dict[tuple[ir.Value, bool, float], ir.Value] = {}

    def get(self, matrix: ir.Value, transpose: bool, factor: float = 1.0) -> ir.Value | None:
        """Returns factor * matrix (or its transpose) as an initializer [N, K], or None."""
        tensor = constant(matrix)
        if tensor is None or tensor.dtype != ir.DataType.FLOAT:
            return None
        shape = list(tensor.shape.numpy())
        if len(shape) < 2 or any(dim != 1 for dim in shape[:-2]):
            return None
        if tensor.size == 0:  # left to products of two activations
            return None
        if not transpose and factor == 1.0 and len(shape) == 2:
            return matrix
        key = (matrix, transpose, factor)
        if key not in self._made:
            first, second = shape[-2:]
            scale = np.float32(factor)

            def compute() -> np.ndarray:
                array = tensor.numpy().reshape(first, second)
                array = array.T if transpose else array
                return array if scale == 1 else array * scale + np.float32(0)

            dims = (second, first) if transpose else (first, second)
            name = matrix.name or "weight"
            self._made[key] = add_initializer(
                self._graph, f"{name}_rows", lazy_tensor(compute, dims, name)
            )
        return self._made[key]

    def get_vector(self, vector: ir.Value) -> ir.Value | None:
        """Returns a vector [K] as an initializer [1, K], or None."""
        tensor = constant(vector)
        if tensor is None or tensor.dtype != ir.DataType.FLOAT or len(tensor.shape) != 1:
            return None
        if tensor.size == 0:
            return None
        key = (vector, False, 1.0)
        if key not in self._made:
            dims = (1, tensor.size)
            name = vector.name or "weight"
            row = lazy_tensor(lambda: tensor.numpy().reshape(dims), dims, name)
            self._made[key] = add_initializer(self._graph, f"{name}_rows", row)
        return self._made[key]


def _lower_gemm(node: ir.Node, rows: _WeightRows) -> None:
    graph = node.graph
    a, b, c = node.inputs[0], node.inputs[1], input_at(node, 2)
    assert isinstance(graph, ir.Graph)
    assert a is not None
    assert b is not None
    alpha, beta = attribute(node, "alpha", 1.0), attribute(node, "beta", 1.0)
    weight = rows.get(b, transpose=not attribute(node, "transB", 0), factor=alpha)
    if weight is None:
        return
    name = node.name or "gemm"
    nodes: list[ir.Node] = []
    if attribute(node, "transA", 0):
        nodes.append(make_node("Transpose", [a], {"perm": [1, 0]}, name=f"{name}_transpose"))
        nodes[-1].outputs[0].type = a.type
        a = nodes[-1].outputs[0]
    assert weight.shape is not None
    width = weight.shape[0]
    bias = _as_bias(c, int(width), beta)  # type: ignore[arg-type]
    bias_value = None if bias is None else add_initializer(graph, f"{name}_bias", bias)
    nodes.append(make_node("Linear", [a, weight, bias_value], {}, SPARSERT, name, node.outputs[0]))
    if c is not None and bias is None and beta != 0:
        if beta != 1:
            factor = add_initializer(graph, f"{name}_beta", np.array(beta, dtype=np.float32))
            nodes.append(make_node("Mul", [c, factor], name=f"{name}_scale"))
            nodes[-1].outputs[0].type, nodes[-1].outputs[0].shape = c.type, c.shape
            c, product = nodes[-1].outputs[0], nodes[-2].outputs[0]
        else:
            product = nodes[-1].outputs[0]
        nodes.append(make_node("Add", [product, c], name=f"{name}_add", like=node.outputs[0]))
    replace_node(node, nodes)


def _as_bias(c: ir.Value | None, width: int, beta: float) -> np.ndarray | None:
    """Returns beta * C as f32[width] if C is constant and the same for every row."""
    array = constant_array(c, 1 << 24)
    if array is None or array.ndim > 2 or (array.ndim == 2 and array.shape[0] != 1):
        return None
    if array.size not in (1, width):
        return None
    row = np.broadcast_to(array.reshape(-1), (width,)).astype(np.float32)
    return np.ascontiguousarray(row * np.float32(beta))


def _lower_matmul(node: ir.Node, rows: _WeightRows) -> None:
    a, b = node.inputs
    assert a is not None
    assert b is not None
    if constant(b) is not None and constant(a) is None:
        _lower_right_constant(node, a, b, rows)
    elif constant(a) is not None and constant(b) is None:
        _lower_left_constant(node, a, b, rows)


def _lower_right_constant(node: ir.Node, x: ir.Value, w: ir.Value, rows: _WeightRows) -> None:
    """Lowers x [..., K] times w [K, N] or [K]."""
    rank, weight_rank = rank_of(x), rank_of(w) or 0
    if weight_rank == 1:
        weight = rows.get_vector(w)
        if weight is not None:
            replace_node(node, _linear_to_scalars(node, x, weight, node.name or "matmul"))
        return
    # Leading ones of the weight must not add dimensions to the result.
    if weight_rank > 2 and (rank is None or rank < weight_rank):
        return
    weight = rows.get(w, transpose=True)
    if weight is not None:
        replace_node(
            node, make_node("Linear", [x, weight], {}, SPARSERT, node.name, node.outputs[0])
        )


def _lower_left_constant(node: ir.Node, w: ir.Value, x: ir.Value, rows: _WeightRows) -> None:
    """Lowers w [M, K] or [K] times x [..., K, N] or [K]."""
    rank, weight_rank = rank_of(x), rank_of(w)
    if not rank or weight_rank not in (1, 2):
        return
    weight = rows.get_vector(w) if weight_rank == 1 else rows.get(w, transpose=False)
    if weight is None:
        return
    name = node.name or "matmul"
    if rank == 1:
        if weight_rank == 1:
            replace_node(node, _linear_to_scalars(node, x, weight, name))
        else:
            replace_node(
                node, make_node("Linear", [x, weight], {}, SPARSERT, name, node.outputs[0])
            )
        return
    perm = [*range(rank - 2), rank - 1, rank - 2]
    before = make_node("Transpose", [x], {"perm": perm}, name=f"{name}_before")
    before.outputs[0].type = node.outputs[0].type
    if x.shape is not None:
        before.outputs[0].shape = ir.Shape([x.shape[i] for i in perm])
    if weight_rank == 1:
        squeezed = _linear_to_scalars(node, before.outputs[0], weight, name)
        replace_node(node, [before, *squeezed])
        return
    linear = make_node("Linear", [before.outputs[0], weight], {}, SPARSERT, name)
    after = make_node("Transpose", [linear.outputs[0]], {"perm": perm}, name=f"{name}_after")
    _describe_linear(linear, node)
    replace_node(node, [before, linear, after])


def _linear_to_scalars(node: ir.Node, x: ir.Value, weight: ir.Value, name: str) -> list[ir.Node]:
    """Returns nodes for x [..., K] times the one row of `weight` [1, K]: one value per row of x."""
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    linear = make_node("Linear", [x, weight], {}, SPARSERT, name)
    _describe_linear(linear, node)
    axes = add_initializer(graph, f"{name}_axes", np.array([-1], dtype=np.int64))
    squeeze = make_node(
        "Squeeze", [linear.outputs[0], axes], name=f"{name}_squeeze", like=node.outputs[0]
    )
    return [linear, squeeze]


def _describe_linear(linear: ir.Node, node: ir.Node) -> None:
    """Gives the output of a Linear that replaces `node` its type and, if known, its shape."""
    x, weight = linear.inputs[:2]
    output = linear.outputs[0]
    output.type = node.outputs[0].type
    if x is not None and x.shape is not None and weight is not None and weight.shape is not None:
        output.shape = ir.Shape([*list(x.shape)[:-1], weight.shape[0]])
