"""Fuses the products and the softmax of attention into sparsert.Attention."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import common

from sparsert.passes.graph_tools import (
    SPARSERT,
    attribute,
    constant_scalar,
    dim_at,
    has_single_use,
    is_f32,
    is_op,
    make_node,
    nodes_of,
    rank_of,
    replace_node,
)


def run(model: ir.Model) -> None:
    """Turns softmax(alpha * q k' + mask) v on [N, heads, tokens, size] into one node, in place.

    Where every operand is split into heads by Reshape and Transpose, and the result joined by
    them, the fused node does so itself: its operands are [N, tokens, heads * size].
    """
    for node in nodes_of(model.graph):
        if _is_product(node) and is_f32(node.outputs[0]):
            _fuse(node)
    common.RemoveUnusedNodesPass()(model)


def _fuse(node: ir.Node) -> None:
    """Fuses the attention that ends in the product `node`."""
    shares, v = node.inputs
    if shares is None or v is None or _flags(node) != (False, False, 1.0):
        return
    softmax = _only_producer(shares, "Softmax")
    if softmax is None or attribute(softmax, "axis", -1) not in (-1, 3):
        return
    scores, mask = softmax.inputs[0], None
    while scores is not None and not _is_product(scores.producer()):
        add = _only_producer(scores, "Add")
        if add is None or mask is not None:
            return
        found = _product_and_mask(add)
        if found is None:
            return
        scores, mask = found
    product = scores.producer() if scores is not None else None
    if product is None or scores is None or not has_single_use(scores):
        return
    trans_a, trans_b, alpha = _flags(product)
    q, k = product.inputs
    if trans_a or q is None or k is None:
        return
    if rank_of(v) != 4 or rank_of(q) != 4 or rank_of(k) != 4:
        return
    # The rows of k, as [N, heads, tokens, size].
    rows = (k, None) if trans_b else (None, k)
    if not _same_batch(q, k, v):
        return
    if _fuse_with_heads(node, q, rows, v, mask, alpha):
        return
    if rows[0] is None:
        turn = make_node("Transpose", [k], {"perm": [0, 1, 3, 2]}, name=f"{node.name}_rows")
        turn.outputs[0].type = k.type
        if k.shape is not None:
            turn.outputs[0].shape = ir.Shape([k.shape[i] for i in (0, 1, 3, 2)])
        nodes, k = [turn], turn.outputs[0]
    else:
        nodes = []
    attributes = {"alpha": float(alpha)}
    nodes.append(
        make_node("Attention", [q, k, v, mask], attributes, SPARSERT, softmax.name, node.outputs[0])
    )
    replace_node(node, nodes)


def _fuse_with_heads(
    node: ir.Node,
    q: ir.Value,
    k: tuple[ir.Value | None, ir.Value | None],
    v: ir.Value,
    mask: ir.Value | None,
    alpha: float,
) -> bool:
    """Fuses with operands [N, tokens, heads * size]; k is given as rows or as columns."""
    heads = dim_at(q, 1)
    joined = _joined(node.outputs[0])
    parts = [
        _split_from(q, (0, 2, 1, 3)),
        _split_from(k[1], (0, 2, 3, 1)) if k[0] is None else _split_from(k[0], (0, 2, 1, 3)),
        _split_from(v, (0, 2, 1, 3)),
    ]
    if heads is None or joined is None or any(part is None for part in parts):
        return False
    if any(dim_at(x, 1) != heads for x in (v, *(x for x in k if x is not None))):
        return False
    new = make_node(
        "Attention",
        [*parts, mask],
        {"alpha": float(alpha), "heads": heads},
        SPARSERT,
        node.name,
        joined.outputs[0],
    )
    replace_node(joined, new)
    return True


def _is_product(node: ir.Node | None) -> bool:
    return is_op(node, "MatMul") or is_op(node, "MatMul", domain=SPARSERT)


def _flags(node: ir.Node) -> tuple[bool, bool, float]:
    return (
        bool(attribute(node, "trans_a", 0)),
        bool(attribute(node, "trans_b", 0)),
        float(attribute(node, "alpha", 1.0)),
    )


def _only_producer(value: ir.Value, op_type: str) -> ir.Node | None:
    """Returns the node that computes `value` for one user, if it is of this type."""
    node = value.producer()
    return node if node is not None and is_op(node, op_type) and has_single_use(value) else None


def _product_and_mask(add: ir.Node) -> tuple[ir.Value, ir.Value] | None:
    """Returns the scores and what is added to them, if that broadcasts to them."""
    for scores, mask in (add.inputs, add.inputs[::-1]):
        if scores is None or mask is None or not _is_product(scores.producer()):
            continue
        if not is_f32(mask) or (rank_of(mask) or 9) > 4 or constant_scalar(mask) is not None:
            continue
        if _is_product(mask.producer()):
            continue
        shape = add.outputs[0].shape
        if shape is None or scores.shape is None or len(shape) != len(scores.shape):
            continue
        # A dimension that is 1 in the scores but not in the sum would be the mask's.
        if all(_same_dim(a, b) or b != 1 for a, b in zip(shape, scores.shape, strict=True)):
            return scores, mask
    return None


def _same_batch(q: ir.Value, k: ir.Value, v: ir.Value) -> bool:
    """Says whether the products provably do not broadcast over images or heads."""
    if q.shape is None or k.shape is None or v.shape is None:
        return False
    return all(_same_dim(q.shape[axis], x.shape[axis]) for x in (k, v) for axis in (0, 1))  # type: ignore[index]


def _same_dim(a: int | ir.SymbolicDim, b: int | ir.SymbolicDim) -> bool:
    if isinstance(a, int) or isinstance(b, int):
        return isinstance(a, int) and isinstance(b, int) and a == b
    return a.value is not None and a.value == b.value


def _split_from(value: ir.Value | None, perm: tuple[int, ...]) -> ir.Value | None:
    """Returns x if value = Transpose(Reshape(x, [N, tokens, heads, size]), perm)."""
    node = value.producer() if value is not None else None
    if node is None or value is None or not is_op(node, "Transpose"):
        return None
    turned = attribute(node, "perm")
    middle = node.inputs[0]
    before = middle.producer() if middle is not None else None
    if before is not None and is_op(before, "Transpose") and rank_of(middle) == 4:
        # Two in a row.
        first = attribute(before, "perm")
        turned = tuple(first[axis] for axis in turned)
        middle = before.inputs[0]
        before = middle.producer() if middle is not None else None
    if turned != perm or before is None or middle is None or not is_op(before, "Reshape"):
        return None
    x = before.inputs[0]
    if x is None or x.shape is None or middle.shape is None:
        return None
    if len(x.shape) != 3 or len(middle.shape) != 4:
        return None
    heads, size, width = dim_at(middle, 2), dim_at(middle, 3), dim_at(x, 2)
    if heads is None or size is None or width != heads * size:
        return None
    return x if _same_tokens(x, middle) else None


def _joined(value: ir.Value) -> ir.Node | None:
    """Returns the Reshape that joins the heads of `value` [N, heads, tokens, size]."""
    if not has_single_use(value):
        return None
    turn = next(iter(value.uses())).node
    if not is_op(turn, "Transpose") or attribute(turn, "perm") != (0, 2, 1, 3):
        return None
    middle = turn.outputs[0]
    if not has_single_use(middle):
        return None
    join = next(iter(middle.uses())).node
    if not is_op(join, "Reshape") or join.inputs[0] is not middle:
        return None
    y = join.outputs[0]
    heads, size = dim_at(middle, 2), dim_at(middle, 3)
    if rank_of(y) != 3 or heads is None or size is None or dim_at(y, 2) != heads * size:
        return None
    return join if _same_tokens(y, middle) else None


def _same_tokens(a: ir.Value, b: ir.Value) -> bool:
    """Says whether dimensions 0 and 1 agree; one of them may be unknown, for it follows."""
    if a.shape is None or b.shape is None:
        return False
    same = [_same_dim(one, other) for one, other in zip(a.shape[:2], b.shape[:2], strict=True)]
    for one, other, equal in zip(a.shape[:2], b.shape[:2], same, strict=True):
        if not equal and isinstance(one, int) and isinstance(other, int):
            return False
    return any(same)
