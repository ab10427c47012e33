"""Writes operators of com.microsoft on floats, which ONNX Runtime's optimisers fuse, as ONNX's."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from sparsert.passes.chain import Chain
from sparsert.passes.contrib_attention import expand_attention, expand_multi_head
from sparsert.passes.graph_tools import (
    attribute,
    constant,
    dim_at,
    input_at,
    is_op,
    nodes_of,
    rank_of,
)

MICROSOFT = "com.microsoft"
_CONV_ATTRIBUTES = ("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")
_GEMM_ATTRIBUTES = ("alpha", "beta", "transA", "transB")
_PRODUCTS = ("MatMul", "Gemm", "Mul")
_CONTRIB_PRODUCTS = ("FusedMatMul", "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "MatMulNBits")
# What onnxruntime takes for epsilon where a node of this name does not say it.
_SKIP_EPSILON = 1e-12


def run(model: ir.Model) -> None:
    """Expands the nodes of the main graph that can be, in place; others stay for the fallback.

    Types are inferred as often as expanding some nodes tells the types of others.
    """
    waiting = [node for node in nodes_of(model.graph) if _expansion(node) is not None]
    while waiting:
        common.ShapeInferencePass(check_type=False, strict_mode=False, data_prop=False)(model)
        left = [node for node in waiting if not _expand(node, model.graph)]
        if len(left) == len(waiting):
            return
        waiting = left


def _expansion(node: ir.Node) -> Callable[[ir.Node, Chain], bool] | None:
    return _EXPANSIONS.get(node.op_type) if node.domain == MICROSOFT else None


def _expand(node: ir.Node, graph: ir.Graph) -> bool:
    expand, chain = _expansion(node), Chain(node, graph)
    if expand is None or node.inputs[0] is None:
        return False
    if not expand(node, chain):
        chain.drop()
        return False
    chain.replace()
    return True


def _product(node: ir.Node, chain: Chain) -> bool:
    a, b = (
        _turned(node, chain, index, attribute(node, f"trans{name}", 0), name)
        for index, name in enumerate("AB")
    )
    if a is None or b is None:
        return False
    y = chain.add("MatMul", [a, b])
    alpha = attribute(node, "alpha", 1.0)
    if alpha != 1:
        chain.add("Mul", [y, _number(node, chain, "alpha", alpha)])
    return True


def _turned(node: ir.Node, chain: Chain, index: int, transposed: int, name: str) -> ir.Value | None:
    """Returns an operand as MatMul takes it; None if that takes a rank that is not known.

    With transBatch, the first axis, not the second last, counts the rows (or columns).
    """
    x = node.inputs[index]
    by_batch = attribute(node, f"transBatch{name}", 0)
    if not transposed and not by_batch:
        return x
    rank = rank_of(x)
    if rank is None or rank < 2:
        return x if rank == 1 else None
    perm = [*range(1, rank - 1), 0, rank - 1] if by_batch else list(range(rank))
    if transposed:
        perm[-2:] = perm[:-3:-1]
    return chain.add("Transpose", [x], perm=perm)


def _skip_norm(node: ir.Node, chain: Chain) -> bool:
    """The norm of x + skip + bias, which is the fourth output."""
    is_simple = node.op_type == "SkipSimplifiedLayerNormalization"
    if any(_is_used(value) for value in node.outputs[1:3]):
        return False
    x, skip, scale = node.inputs[:3]
    shift, bias = (None, 3) if is_simple else (input_at(node, 3), 4)
    if (addend := input_at(node, bias)) is not None:
        if _is_product(skip) and not _is_product(x):
            x, skip = skip, x
        x = chain.add("Add", [x, addend])  # a layer takes it as its bias
    total = chain.add("Add", [x, skip])
    if len(node.outputs) > 3 and _is_used(node.outputs[3]):
        chain.give(3, total)
    _norm(node, chain, [total, scale, shift], is_simple, _SKIP_EPSILON)
    return True


def _simplified_norm(node: ir.Node, chain: Chain) -> bool:
    if any(_is_used(value) for value in node.outputs[1:]):
        return False
    _norm(node, chain, list(node.inputs[:2]), True, 1e-5)
    return True


def _norm(
    node: ir.Node,
    chain: Chain,
    inputs: list[ir.Value | None],
    is_simple: bool,
    epsilon: float,
) -> None:
    chain.add(
        "RMSNormalization" if is_simple else "LayerNormalization",
        inputs,
        axis=attribute(node, "axis", -1),
        epsilon=attribute(node, "epsilon", epsilon),
    )


def _layer_norm(node: ir.Node, chain: Chain) -> bool:
    given = {"axis": attribute(node, "axis", -1), "epsilon": attribute(node, "epsilon", 1e-5)}
    outputs = chain.add_outputs("LayerNormalization", list(node.inputs), len(node.outputs), **given)
    for index, value in enumerate(outputs[1:], 1):
        chain.give(index, value)
    return True


def _gelu(node: ir.Node, chain: Chain) -> bool:
    x = _with_bias(node, chain)
    chain.add("Gelu", [x], approximate="tanh" if node.op_type == "FastGelu" else "none")
    return True


def _quick_gelu(node: ir.Node, chain: Chain) -> bool:
    x = node.inputs[0]
    scaled = chain.add("Mul", [x, _number(node, chain, "alpha", attribute(node, "alpha", 1.702))])
    chain.add("Mul", [x, chain.add("Sigmoid", [scaled])])
    return True


def _with_bias(node: ir.Node, chain: Chain) -> ir.Value | None:
    bias = input_at(node, 1)
    return node.inputs[0] if bias is None else chain.add("Add", [node.inputs[0], bias])


def _conv(node: ir.Node, chain: Chain) -> bool:
    params = attribute(node, "activation_params", ())
    kept = {name: attribute(node, name) for name in _CONV_ATTRIBUTES}
    y = chain.add("Conv", list(node.inputs[:3]), **kept)
    other = input_at(node, 3)
    if other is not None:
        y = chain.add("Add", [y, other])
    op = attribute(node, "activation", "")
    if op == "Clip":
        if len(params) != 2:
            return False
        low, high = (_number(node, chain, "limit", limit) for limit in params)
        chain.add("Clip", [y, low, high])
        return True
    return _activate(y, op, dict(zip(("alpha", "beta"), params, strict=False)), chain)


def _gemm(node: ir.Node, chain: Chain) -> bool:
    kept = {name: attribute(node, name) for name in _GEMM_ATTRIBUTES}
    y = chain.add("Gemm", list(node.inputs), **kept)
    names = ("alpha", "beta", "gamma")
    given = {name: attribute(node, f"activation_{name}") for name in names}
    return _activate(y, attribute(node, "activation", ""), given, chain)


def _activate(y: ir.Value, op: str, given: dict[str, Any], chain: Chain) -> bool:
    """Adds an activation with those of the parameters that it has; returns False if unknown."""
    if op not in _ACTIVATIONS:
        return op == ""
    kept: dict[str, Any] = {name: given.get(name) for name in _ACTIVATIONS[op]}
    chain.add(op, [y], **kept)
    return True


def _embeddings(node: ir.Node, chain: Chain) -> bool:
    """The norm of the sum of a word's, a place's and maybe a segment's vector.

    QEmbedLayerNormalization has bytes in all tables, and those of the norm's scale and shift.
    """
    is_quantised = node.op_type == "QEmbedLayerNormalization"
    steps = 8 if is_quantised else len(node.inputs)
    ids, segments, words, places, kinds, scale, shift, mask = (
        _Bytes(input_at(node, i), input_at(node, steps + i - 2), input_at(node, steps + i + 3))
        for i in range(8)
    )
    at = None if is_quantised else input_at(node, 8)
    if is_quantised and any(constant(x.scale) is None for x in (words, places, scale, shift)):
        return False
    total = _rows(chain, words, ids.values)
    if at is None:
        at = _first_numbers(chain, places.values, ids.values)
        if at is None:
            return False
    total = chain.add("Add", [total, _rows(chain, places, at)])
    if segments.values is not None and kinds.values is not None:
        total = chain.add("Add", [total, _rows(chain, kinds, segments.values)])
    if len(node.outputs) > 1 and _is_used(node.outputs[1]):
        chain.give(1, _mask_index(ids.values, mask.values, chain))
    if len(node.outputs) > 2 and _is_used(node.outputs[2]):
        chain.give(2, total)
    vectors = [_floats(chain, x.values, x) for x in (scale, shift)]
    _norm(node, chain, [total, *vectors], False, _SKIP_EPSILON)
    return True


@dataclasses.dataclass(frozen=True)
class _Bytes:
    """A table, with scale and zero point if it holds bytes."""

    values: ir.Value | None
    scale: ir.Value | None
    zero: ir.Value | None


def _rows(chain: Chain, table: _Bytes, numbers: ir.Value | None) -> ir.Value:
    return _floats(chain, chain.add("Gather", [table.values, numbers]), table)


def _floats(chain: Chain, x: ir.Value | None, of: _Bytes) -> ir.Value:
    assert x is not None
    if of.scale is None:
        return x
    y = chain.add("DequantizeLinear", [x, of.scale, of.zero])
    y.type = ir.TensorType(ir.DataType.FLOAT)
    return y


def _first_numbers(chain: Chain, table: ir.Value | None, ids: ir.Value | None) -> ir.Value | None:
    """Returns 0, 1, ... for the words in a row of the batch; None for a table of unknown size."""
    size = None if table is None else dim_at(table, 0)
    if size is None:
        return None
    count = _integers(chain, "Shape", ids, start=1, end=2)
    first, axis = chain.constant("first", np.array([0])), chain.constant("axis", np.array([0]))
    return chain.add("Slice", [chain.constant("places", np.arange(size)), first, count, axis])


def _mask_index(ids: ir.Value | None, mask: ir.Value | None, chain: Chain) -> ir.Value:
    """Returns how many words a mask shows in each row of the batch, i32; 0 without a mask."""
    if mask is None:
        rows = _integers(chain, "Shape", ids, start=0, end=1)
        zero = chain.constant("none", np.zeros((), np.int32))
        return chain.add("Expand", [zero, rows])
    axis = chain.constant("words", np.array([1]))
    shown = chain.add("Equal", [mask, chain.constant("shown", np.ones((), np.int32))])
    shown.type = ir.TensorType(ir.DataType.BOOL)
    shown = chain.add("Cast", [shown], to=int(ir.DataType.INT32))
    return chain.add("ReduceSum", [shown, axis], keepdims=0)


def _integers(chain: Chain, op: str, x: ir.Value | None, **attributes: Any) -> ir.Value:
    y = chain.add(op, [x], **attributes)
    y.type = ir.TensorType(ir.DataType.INT64)
    return y


def _number(node: ir.Node, chain: Chain, what: str, number: float) -> ir.Value:
    """Adds a constant of the type that the node computes in."""
    dtype = next((v.dtype for v in node.inputs if v is not None and v.dtype), ir.DataType.FLOAT)
    return chain.constant(what, np.array(number, dtype.numpy()))


def _is_product(value: ir.Value | None) -> bool:
    node = None if value is None else value.producer()
    return is_op(node, *_PRODUCTS) or is_op(node, *_CONTRIB_PRODUCTS, domain=MICROSOFT)


def _is_used(value: ir.Value) -> bool:
    return bool(value.uses()) or value.is_graph_output()


# Activations that convolutions and Gemm have fused into them, and their parameters in order.
_ACTIVATIONS: dict[str, tuple[str, ...]] = {
    "Relu": (),
    "Sigmoid": (),
    "Tanh": (),
    "Softplus": (),
    "Softsign": (),
    "Elu": ("alpha",),
    "LeakyRelu": ("alpha",),
    "ThresholdedRelu": ("alpha",),
    "HardSigmoid": ("alpha", "beta"),
    "Selu": ("alpha", "gamma"),
}
_EXPANSIONS: dict[str, Callable[[ir.Node, Chain], bool]] = {
    "FusedMatMul": _product,
    "TransposeMatMul": _product,
    "SkipLayerNormalization": _skip_norm,
    "SkipSimplifiedLayerNormalization": _skip_norm,
    "SimplifiedLayerNormalization": _simplified_norm,
    "LayerNormalization": _layer_norm,
    "Gelu": _gelu,
    "BiasGelu": _gelu,
    "FastGelu": _gelu,
    "QuickGelu": _quick_gelu,
    "FusedConv": _conv,
    "FusedGemm": _gemm,
    "EmbedLayerNormalization": _embeddings,
    "QEmbedLayerNormalization": _embeddings,
    "Attention": expand_attention,
    "QAttention": expand_attention,
    "MultiHeadAttention": expand_multi_head,
}
