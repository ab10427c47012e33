"""Turns ONNX's Attention into sparsert.Attention, or into products and a softmax."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import onnx_ir as ir

from sparsert.passes.chain import Chain
from sparsert.passes.graph_tools import (
    SPARSERT,
    attribute,
    dim_at,
    input_at,
    is_f32,
    is_op,
    nodes_of,
    rank_of,
)

_HEADS_FIRST = [0, 2, 1, 3]


def run(model: ir.Model) -> None:
    """Lowers f32 nodes whose heads and their size are known, in place.

    What a query may not see becomes a mask that is added; a query that may see nothing gives
    zeros. With softcap, or where the scores are an output, the operators of the definition take
    the node's place.
    """
    for node in nodes_of(model.graph):
        if not is_op(node, "Attention") or not is_f32(node.outputs[0]):
            continue
        chain = Chain(node, model.graph)
        if _lower(node, chain):
            chain.replace()
            model.opset_imports.setdefault(SPARSERT, 1)


@dataclasses.dataclass(frozen=True)
class _Heads:
    """What is known of the heads of an Attention."""

    rank: int  # of q, k and v
    count: int
    kv_count: int
    size: int
    value_size: int


def _lower(node: ir.Node, chain: Chain) -> bool:
    heads = _heads_of(node)
    mask = input_at(node, 3)
    if heads is None or (mask is not None and rank_of(mask) is None):
        return False
    q, k, v = node.inputs[:3]
    assert q is not None and k is not None and v is not None
    used = [value.uses() or value.is_graph_output() for value in node.outputs]
    used += [False] * (4 - len(used))
    spelled_out = bool(used[3]) or attribute(node, "softcap", 0.0) > 0
    past = input_at(node, 4) is not None or used[1] or used[2]
    # A row of the mask of one head says nothing about the features of the others.
    masked_by_head = mask is not None and (rank_of(mask) or 0) >= 3 and dim_at(mask, -3) != 1
    split = heads.rank == 3 and bool(spelled_out or past or masked_by_head)
    if split:
        q = _split(chain, q, heads.count, heads.size, "q")
        k = _split(chain, k, heads.kv_count, heads.size, "k")
        v = _split(chain, v, heads.kv_count, heads.value_size, "v")
    k = _present(node, chain, k, 1)
    v = _present(node, chain, v, 2)
    tokens = 1 if heads.rank == 3 and not split else 2
    bias, may_be_empty = _bias(node, chain, q, k, tokens)
    empty = _empty_rows(chain, bias) if bias is not None and may_be_empty else None
    scale = float(attribute(node, "scale", 1 / math.sqrt(heads.size)))
    if spelled_out:
        y = _spell_out(node, chain, heads, (q, k, v), scale, bias, empty)
    else:
        attributes: dict[str, int | float] = {"alpha": scale}
        if tokens == 1:
            attributes |= {"heads": heads.count, "kv_heads": heads.kv_count}
        shape = node.outputs[0].shape if not split else None
        y = chain.add("Attention", [q, k, v, bias], shape, SPARSERT, **attributes)
        if empty is not None:
            if tokens == 1 and _bias_rank(node) > 2:
                one_head = chain.constant("one_head", np.array([-3]))
                empty = chain.add("Squeeze", [empty, one_head])
            y = chain.add("Where", [empty, _number(chain, "nothing", 0), y])
            y.type = q.type
    if split:
        y = chain.add("Transpose", [y], perm=_HEADS_FIRST)
        joined = chain.constant("joined", np.array([0, 0, heads.count * heads.value_size]))
        chain.add("Reshape", [y, joined])
    return True


def _heads_of(node: ir.Node) -> _Heads | None:
    q, k, v = node.inputs[:3]
    rank = rank_of(q)
    if rank not in (3, 4) or rank_of(k) != rank or rank_of(v) != rank:
        return None
    assert rank is not None and q is not None and k is not None and v is not None
    width, value_width = dim_at(q, -1), dim_at(v, -1)
    if rank == 3:
        count, kv_count = attribute(node, "q_num_heads"), attribute(node, "kv_num_heads")
    else:
        count, kv_count = dim_at(q, 1), dim_at(k, 1)
    if not width or not value_width or not count or not kv_count or count % kv_count:
        return None
    if rank == 3:
        if width % count or value_width % kv_count:
            return None
        width, value_width = width // count, value_width // kv_count
    return _Heads(rank, count, kv_count, width, value_width)


def _split(chain: Chain, x: ir.Value, heads: int, size: int, what: str) -> ir.Value:
    """Returns [N, tokens, heads * size] as [N, heads, tokens, size]."""
    target = chain.constant(f"{what}_heads", np.array([0, 0, heads, size]))
    return chain.add("Transpose", [chain.add("Reshape", [x, target])], perm=_HEADS_FIRST)


def _present(node: ir.Node, chain: Chain, x: ir.Value, index: int) -> ir.Value:
    """Puts the past keys or values in front, and gives the result to the output `index`."""
    past = input_at(node, 3 + index)
    if past is not None:
        x = chain.add("Concat", [past, x], axis=2)
    if index < len(node.outputs):
        value = node.outputs[index]
        if value.uses() or value.is_graph_output():
            x = x if past is not None else chain.add("Identity", [x])
            chain.give(index, x)
    return x


def _bias_rank(node: ir.Node) -> int:
    """Returns the number of dimensions of what is added to the scores."""
    return max(rank_of(input_at(node, 3)) or 0, 4 if input_at(node, 6) is not None else 2)


def _bias(
    node: ir.Node, chain: Chain, q: ir.Value, k: ir.Value, tokens: int
) -> tuple[ir.Value | None, bool]:
    """Returns what is added to the scores, and whether a row of it may be -inf throughout."""
    mask, lengths = input_at(node, 3), input_at(node, 6)
    causal = attribute(node, "is_causal", 0)
    left, right = attribute(node, "left_window_size", -1), attribute(node, "right_window_size", -1)
    key_count = _length(chain, k, tokens)
    bias = None
    if causal or left >= 0 or right >= 0 or lengths is not None:
        keys = _range(chain, key_count)
        query_count = _length(chain, q, tokens)
        column = chain.constant("column", np.array([1]))
        place = chain.add("Unsqueeze", [_range(chain, query_count), column])
        if lengths is not None:
            by_image = chain.constant("by_image", np.array([-1, 1, 1, 1]))
            lengths = chain.add("Reshape", [lengths, by_image])
            place = chain.add("Add", [place, chain.add("Sub", [lengths, query_count])])
        elif input_at(node, 4) is not None:
            place = chain.add("Add", [place, _length(chain, node.inputs[4], 2)])
        seen = []
        if causal:
            seen.append(chain.add("LessOrEqual", [keys, place]))
        if left >= 0:
            first = chain.add("Sub", [place, chain.constant("left", np.array(left))])
            seen.append(chain.add("GreaterOrEqual", [keys, first]))
        if right >= 0:
            last = chain.add("Add", [place, chain.constant("right", np.array(right))])
            seen.append(chain.add("LessOrEqual", [keys, last]))
        if lengths is not None:
            seen.append(chain.add("Less", [keys, lengths]))
        bias = _where(chain, seen)
    if mask is not None:
        if mask.dtype == ir.DataType.BOOL:
            mask = _where(chain, [mask])
        mask = _padded(node, chain, mask, key_count)
        bias = mask if bias is None else chain.add("Add", [bias, mask])
    return bias, mask is not None or lengths is not None or left >= 0 or right >= 0


def _length(chain: Chain, x: ir.Value | None, axis: int) -> ir.Value:
    """Returns a dimension as a scalar."""
    dim = chain.add("Shape", [x], start=axis, end=axis + 1)
    dim.type = ir.TensorType(ir.DataType.INT64)
    return chain.add("Squeeze", [dim])


def _range(chain: Chain, count: ir.Value) -> ir.Value:
    first, step = chain.constant("first", np.array(0)), chain.constant("step", np.array(1))
    return chain.add("Range", [first, count, step])


def _where(chain: Chain, seen: list[ir.Value]) -> ir.Value:
    """Returns 0 where all of `seen` hold, -inf elsewhere."""
    for value in seen:
        value.type = ir.TensorType(ir.DataType.BOOL)
    all_seen = seen[0]
    for other in seen[1:]:
        all_seen = chain.add("And", [all_seen, other])
    bias = chain.add(
        "Where", [all_seen, _number(chain, "seen", 0), _number(chain, "unseen", -np.inf)]
    )
    bias.type = ir.TensorType(ir.DataType.FLOAT)
    return bias


def _number(chain: Chain, what: str, number: float) -> ir.Value:
    return chain.constant(what, np.array(number, np.float32))


def _padded(node: ir.Node, chain: Chain, mask: ir.Value, key_count: ir.Value) -> ir.Value:
    """Adds -inf for the keys that a mask does not reach."""
    given = input_at(node, 3)
    rank = rank_of(given)
    assert given is not None and given.shape is not None and rank
    reach = given.shape[-1]
    total = _key_count(node)
    if total is not None and total == (reach if isinstance(reach, int) else reach.value):
        return mask
    missing = chain.add("Sub", [key_count, _length(chain, given, rank - 1)])
    last = chain.constant("last", np.array([0]))
    zeros = chain.constant("zeros", np.zeros(2 * rank - 1, np.int64))
    pads = chain.add("Concat", [zeros, chain.add("Unsqueeze", [missing, last])], axis=0)
    return chain.add("Pad", [mask, pads, _number(chain, "beyond", -np.inf)])


def _key_count(node: ir.Node) -> int | str | None:
    """Returns how many keys there are with the past ones, if that is known, or its symbol."""
    k, past = node.inputs[1], input_at(node, 4)
    assert k is not None and k.shape is not None
    dim = k.shape[-2]
    if past is None:
        return dim if isinstance(dim, int) else dim.value
    before = dim_at(past, 2)
    return dim + before if isinstance(dim, int) and before is not None else None


def _empty_rows(chain: Chain, bias: ir.Value) -> ir.Value:
    """Returns where a row of the mask is -inf throughout, bool [..., queries, 1]."""
    keys = chain.constant("keys", np.array([-1]))
    most = chain.add("ReduceMax", [bias, keys], keepdims=1)
    empty = chain.add("Equal", [most, _number(chain, "nothing_seen", -np.inf)])
    empty.type = ir.TensorType(ir.DataType.BOOL)
    return empty


def _spell_out(
    node: ir.Node,
    chain: Chain,
    heads: _Heads,
    qkv: tuple[ir.Value, ir.Value, ir.Value],
    scale: float,
    bias: ir.Value | None,
    empty: ir.Value | None,
) -> ir.Value:
    """Adds the operators of the definition, on operands [N, heads, tokens, size]."""
    q, k, v = qkv
    if heads.count != heads.kv_count:
        k = _repeated(chain, k, heads, heads.size, "k")
        v = _repeated(chain, v, heads, heads.value_size, "v")
    turned = chain.add("Transpose", [k], perm=[0, 1, 3, 2])
    product = chain.add("MatMul", [q, turned])
    stages = [chain.add("Mul", [product, _number(chain, "scale", scale)])]
    softcap = attribute(node, "softcap", 0.0)
    scores = stages[0]
    if softcap > 0:
        cap = _number(chain, "cap", softcap)
        scores = chain.add("Mul", [chain.add("Tanh", [chain.add("Div", [scores, cap])]), cap])
    stages.append(scores)
    if bias is not None:
        scores = chain.add("Add", [scores, bias])
    stages.append(scores)
    shares = chain.add("Softmax", [scores], axis=-1)
    if empty is not None:
        shares = chain.add("Where", [empty, _number(chain, "nothing", 0), shares])
        shares.type = q.type
    stages.append(shares)
    if len(node.outputs) > 3:
        shown = stages[attribute(node, "qk_matmul_output_mode", 0)]
        chain.give(3, chain.add("Identity", [shown]))
    return chain.add("MatMul", [shares, v])


def _repeated(chain: Chain, x: ir.Value, heads: _Heads, size: int, what: str) -> ir.Value:
    """Returns [N, kv heads, tokens, size] with each head as often as there are for q."""
    second = chain.constant(f"{what}_second", np.array([2]))
    times = np.array([1, 1, heads.count // heads.kv_count, 1, 1])
    wide = chain.add("Unsqueeze", [x, second])
    wide = chain.add("Expand", [wide, chain.constant(f"{what}_times", times)])
    target = chain.constant(f"{what}_repeated", np.array([0, heads.count, -1, size]))
    return chain.add("Reshape", [wide, target])
