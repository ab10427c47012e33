"""Attention, QAttention and MultiHeadAttention of com.microsoft as ONNX's Attention."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from sparsert.passes.chain import Chain
from sparsert.passes.graph_tools import (
    attribute,
    constant,
    dim_at,
    input_at,
    is_op,
    rank_of,
)

# What hides a key is added to its score.
_HIDDEN = -10000.0
# Where a node has its mask, its past keys and values, and what else is added to the scores.
_PLACES = {"Attention": (3, 4, 5), "QAttention": (5, 8, None)}


def expand_attention(node: ir.Node, chain: Chain) -> bool:
    """Expands a node that makes queries, keys and values of one input, in bytes in QAttention."""
    x, weight, bias = node.inputs[0], node.inputs[1], input_at(node, 2)
    mask, past, addend = (
        None if index is None else input_at(node, index) for index in _PLACES[node.op_type]
    )
    width = None if weight is None else dim_at(weight, 1)
    shares_buffer = attribute(node, "past_present_share_buffer", 0)
    if width is None or rank_of(x) != 3 or attribute(node, "do_rotary", 0) or shares_buffer:
        return False
    sizes = attribute(node, "qkv_hidden_sizes", (width // 3,) * 3)
    if node.op_type == "QAttention":
        operands = _dequantised(node, chain)
        if operands is None:
            return False
        x, weight = operands
    y = chain.add("MatMul", [x, weight])
    if bias is not None:
        y = chain.add("Add", [y, bias])
    q, k, v = chain.add_outputs("Split", [y, chain.constant("sizes", np.array(sizes))], 3, axis=-1)
    pasts: list[ir.Value | None] = [None, None]
    if past is not None:  # [2, N, heads, tokens, features]
        pasts = [
            chain.add("Gather", [past, chain.constant("which", np.array(i))]) for i in range(2)
        ]
    added = _bias(node, chain, mask, addend, k, pasts[0])
    if added is False:
        return False
    present = node.outputs[1] if len(node.outputs) > 1 else None
    shown = present is not None and (present.uses() or present.is_graph_output())
    outputs = _attend(node, chain, [q, k, v, added, *pasts], 3 if shown else 1)
    if shown:
        axis = chain.constant("axis", np.array([0]))
        pair = [chain.add("Unsqueeze", [value, axis]) for value in outputs[1:]]
        chain.give(1, chain.add("Concat", pair, axis=0))
        chain.add("Identity", outputs[:1])
    return True


def expand_multi_head(node: ir.Node, chain: Chain) -> bool:
    """Expands a node whose queries, keys and values are [N, tokens, heads * features]."""
    q, k, v, bias, mask, addend, past_k, past_v = (input_at(node, i) for i in range(8))
    if any(rank_of(x) != 3 for x in (q, k, v)) or any(input_at(node, i) for i in range(8, 10)):
        return False
    if len(node.outputs) > 3 and (node.outputs[3].uses() or node.outputs[3].is_graph_output()):
        return False
    operands = [q, k, v]
    if bias is not None:
        widths = [None if x is None else dim_at(x, 2) for x in operands]
        if any(width is None for width in widths):
            return False
        sizes = chain.constant("sizes", np.array(widths))
        parts = chain.add_outputs("Split", [bias, sizes], 3, axis=0)
        operands = [chain.add("Add", [x, part]) for x, part in zip(operands, parts, strict=True)]
    added = _bias(node, chain, mask, addend, operands[1], past_k)
    if added is False:
        return False
    used = [bool(value.uses() or value.is_graph_output()) for value in node.outputs[1:3]]
    outputs = _attend(node, chain, [*operands, added, past_k, past_v], 3 if any(used) else 1)
    for index, is_used in enumerate(used, 1):
        if is_used:
            chain.give(index, outputs[index])
    return True


def _dequantised(node: ir.Node, chain: Chain) -> tuple[ir.Value, ir.Value] | None:
    """Returns a QAttention's input and weights in floats."""
    x, weight, _, x_scale, scale, _, x_zero, zero = (input_at(node, index) for index in range(8))
    source = None if x is None else x.producer()
    constants = [weight, scale, zero]
    if source is None or not is_op(source, "DynamicQuantizeLinear"):
        constants += [x_scale, x_zero]
    if any(value is not None and constant(value) is None for value in constants):
        return None
    floats = []
    for operand in ([x, x_scale, x_zero], [weight, scale, zero]):
        floats.append(chain.add("DequantizeLinear", operand, axis=1))
        floats[-1].type = ir.TensorType(ir.DataType.FLOAT)
    return floats[0], floats[1]


def _attend(
    node: ir.Node, chain: Chain, inputs: list[ir.Value | None], count: int
) -> list[ir.Value]:
    while inputs[-1] is None:
        inputs.pop()
    heads = attribute(node, "num_heads")
    given: dict[str, Any] = {"q_num_heads": heads, "kv_num_heads": heads}
    given["is_causal"] = int(bool(attribute(node, "unidirectional", 0)))
    scale = attribute(node, "scale", 0.0)
    if scale:
        given["scale"] = scale
    return chain.add_outputs("Attention", inputs, count, **given)


def _bias(
    node: ir.Node,
    chain: Chain,
    mask: ir.Value | None,
    addend: ir.Value | None,
    k: ir.Value | None,
    past: ir.Value | None,
) -> Any:
    """Returns what is added to the scores, or None; False for a mask in a form not known here.

    A mask has a number per key, or per query and key, that is above 0 where it is seen; or, per
    image, how many keys are seen; or that for all images and then, for all, the first seen key.
    """
    if mask is None:
        return addend
    rank = rank_of(mask)
    if rank in (2, 3):
        zero = chain.constant("unseen", np.zeros((), np.int32))
        axes = chain.constant("heads", np.array([1, 2] if rank == 2 else [1]))
        seen = _true_where(chain, "Greater", chain.add("Unsqueeze", [mask, axes]), zero)
    elif rank == 1 and mask.shape is not None:
        images = node.inputs[0].shape[0] if node.inputs[0] and node.inputs[0].shape else None
        count = mask.shape[0]
        by_image = chain.constant("by_image", np.array([-1, 1, 1, 1]))
        long = chain.add("Cast", [mask], to=int(ir.DataType.INT64))
        keys = _keys(chain, k, past)
        if isinstance(images, int) and count == 2 * images:
            both = chain.constant("both", np.array([images, images]))
            long, first = chain.add_outputs("Split", [long, both], 2, axis=0)
            first = chain.add("Reshape", [first, by_image])
            begun = _true_where(chain, "GreaterOrEqual", keys, first)
            ends = _true_where(chain, "Less", keys, chain.add("Reshape", [long, by_image]))
            seen = chain.add("And", [begun, ends])
        elif images is not None and count == images:
            seen = _true_where(chain, "Less", keys, chain.add("Reshape", [long, by_image]))
        else:
            return False
    else:
        return False
    dtype = next((v.dtype for v in (addend, node.outputs[0]) if v and v.dtype), ir.DataType.FLOAT)
    hidden = attribute(node, "mask_filter_value", _HIDDEN)
    choices = [
        chain.constant(what, np.array(number, dtype.numpy()))
        for what, number in (("seen", 0), ("hidden", hidden))
    ]
    bias = chain.add("Where", [seen, *choices])
    bias.type = ir.TensorType(dtype)
    return bias if addend is None else chain.add("Add", [bias, addend])


def _true_where(chain: Chain, op: str, a: ir.Value, b: ir.Value) -> ir.Value:
    result = chain.add(op, [a, b])
    result.type = ir.TensorType(ir.DataType.BOOL)
    return result


def _keys(chain: Chain, k: ir.Value | None, past: ir.Value | None) -> ir.Value:
    """Returns the numbers of the keys, past ones first."""
    ends = []
    for value, axis in ((k, 1), (past, 2)):
        if value is not None:
            end = chain.add("Shape", [value], start=axis, end=axis + 1)
            end.type = ir.TensorType(ir.DataType.INT64)
            ends.append(chain.add("Squeeze", [end]))
    count = ends[0] if len(ends) == 1 else chain.add("Add", ends)
    first, step = chain.constant("first", np.array(0)), chain.constant("step", np.array(1))
    return chain.add("Range", [first, count, step])
